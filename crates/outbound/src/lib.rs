//! Requests to the outside, which a setting or a person may have pointed at the wrong place.
//!
//! [`Reach`] says where requests may go. [`permit`] judges a URL before a request; [`client`] makes connections that go
//! to the very addresses that were judged when the name was resolved, so that a second answer of the name server
//! changes nothing; [`rechecked_redirects`] judges each hop again.

mod addresses;
mod guard;

pub use addresses::is_public;
pub use guard::{Forbidden, Reach, bare, client, innermost, permit, rechecked_redirects};
