"""Features of frozen encoders: quantised, or stored as float16."""
