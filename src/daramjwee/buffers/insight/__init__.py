"""What a pool tells of itself: trends, alerts, health, and advice. Nothing here moves a byte."""
