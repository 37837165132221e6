//! The HTTP front door: listener, limits, headers, WebSocket upgrades, drain.
