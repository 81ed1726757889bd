"""One running origin fetch, many readers: kernel (pure), flight (threads), stream (what callers hold)."""
