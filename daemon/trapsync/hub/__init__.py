"""The hub: a small receiver that speaks the Sticky Pi upload protocol (extra `hub`)."""
