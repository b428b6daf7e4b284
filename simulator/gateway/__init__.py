"""The reference payment gateway: HTTP in front of the embedded platform, one process a gateway, one ledger behind them all."""
