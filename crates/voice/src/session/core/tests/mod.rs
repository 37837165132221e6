//! The session core in virtual time, against a far end that plays what it is sent and a server that is told what to do.

mod barge_in;
mod calls;
mod kit;
mod properties;
mod rollover;
mod tools;
mod upstreams;
