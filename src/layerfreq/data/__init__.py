"""Features, targets and inputs as everything else gets them: checked once, here."""
