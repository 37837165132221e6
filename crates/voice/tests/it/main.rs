//! Sessions on real sockets whose other ends misbehave.

mod host;
mod sockets;
