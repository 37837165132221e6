//! Typed settings from file, environment and flags; every mistake reported at once.
//!
//! One table (`src/keys/mod.rs`) names every key with its form, its environment variables and its meaning. Reading,
//! `longhouse config`, the completeness tests and `docs/configuration.md` all come from it.
//!
//! ```
//! use longhouse_config::{Config, Sources};
//!
//! let sources = Sources::default()
//!     .env([("PORT", "8080")])
//!     .flag("server.request_timeout", "45s");
//! let loaded = Config::load(&sources)?;
//! assert_eq!(loaded.config.server.port, 8080);
//! assert_eq!(loaded.origins.get("server.port").to_string(), "environment PORT");
//!
//! let errors = Config::load(&Sources::default().env([("PORT", "80800")])).unwrap_err();
//! assert!(errors.to_string().contains("`80800` is not a port"));
//! # Ok::<(), longhouse_config::ConfigErrors>(())
//! ```

mod address;
mod consistency;
mod error;
mod file;
mod forms;
mod keys;
mod load;
mod quantity;
mod reference;
mod report;
mod settings;

pub use error::{ConfigErrors, Mistake};
pub use load::{Loaded, Origin, Origins, Sources};
pub use reference::reference;
pub use report::ReportLine;
pub use settings::*;
