"""What both doors share: look-up, plan (pure), freshness (pure), fence, execution, background work, life cycle."""
