//! Sign-up and sign-in: what people and apps notice of it.

mod imports;
mod limits;
mod links;
mod password;
mod phone;
mod refresh;
mod signup;
mod user;
