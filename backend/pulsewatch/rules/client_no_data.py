"""Nothing has arrived from any pipeline of a client for too long."""

from pulsewatch.rules.no_data import kind_of

KIND = kind_of("client", "client_no_data", "Nothing from a client")
