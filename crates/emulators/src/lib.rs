//! Strict local stand-ins for the external protocols that Longhouse speaks.
