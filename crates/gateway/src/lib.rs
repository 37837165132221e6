//! Every model call of every application goes through here.
//!
//! An application names a [`Task`] and hands over a request; [`Configuration`] says which models may serve it, in which
//! order. The rooms:
//!
//! * [`chat`], [`speech`], [`transcription`], [`images`], [`embeddings`], [`moderation`]: what can be asked and what
//!   comes back, the same for every provider.
//! * [`providers`]: one thin adapter for each wire protocol, behind one small trait for each modality.
//! * [`live`]: the same for speech as it happens: sockets that hear, speak, or do both.
//! * [`offline`]: a provider that needs no network and says so.
//! * [`routing`]: deadlines, retries, breakers, limits and the chain of models; the front door is [`Gateway`].
//! * [`keys`], [`ledger`], [`quotas`], [`cache`]: the seams at which a call is authorised, counted, bounded and reused;
//!   [`prices`]: what it costs.
//! * [`jobs`]: long work that outlives its request; [`routes`]: all of it over HTTP.
//! * [`safety`]: judging what people write and what models answer.

pub mod cache;
pub mod capability;
pub mod chat;
pub mod configuration;
pub mod embeddings;
mod error;
pub mod images;
pub mod jobs;
pub mod keys;
pub mod ledger;
pub mod live;
pub mod media;
pub mod model;
pub mod moderation;
pub mod offline;
pub mod prices;
pub mod providers;
pub mod quotas;
pub mod routes;
pub mod routing;
pub mod safety;
mod schema;
pub mod speech;
pub mod transcription;
pub mod usage;

pub use configuration::Configuration;
pub use error::{Error, Failure, Fault, Tried, Waiting};
pub use model::{Modality, ModelRef, ProviderName, Task};
pub use routing::Gateway;
pub use schema::{AGENT_ROLE, MIGRATIONS, SCHEMA};
pub use usage::Usage;
