//! Realtime over real sockets, on a real Postgres.
