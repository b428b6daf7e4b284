"""What other programs take from a finished run: its series as Parquet, its metrics as OpenTelemetry's protocol has them."""
