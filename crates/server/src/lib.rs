//! The HTTP front door: listener, limits, headers, WebSocket upgrades, drain.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use longhouse_server::{Drain, Listener, Stack, serve};
//!
//! # async fn run(settings: longhouse_config::Server) -> Result<(), longhouse_server::Error> {
//! let drain = Drain::new();
//! let router = Router::new().route("/", get(|| async { "hello" }));
//! let router = Stack::new(&settings).probe("/health").apply(router);
//! let listener = Listener::bind((settings.host, settings.port).into()).await?;
//! serve(listener, router, drain).await;
//! # Ok(())
//! # }
//! ```

mod body;
mod client;
mod drain;
mod error;
mod listener;
mod rate_limit;
mod request_id;
mod stack;
pub mod websocket;

pub use client::{ClientIp, PublicOrigin};
pub use drain::{Drain, Guard, Phase};
pub use error::{ApiError, Error};
pub use listener::{Listener, serve};
pub use request_id::RequestId;
pub use stack::Stack;
