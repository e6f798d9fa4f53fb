"""What tests share: throw-away servers, databases, real processes."""
