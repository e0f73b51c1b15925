"""The auditor's handlers: events and commands in, decisions and alerts out."""
