//! Codecs and sample rates. Telephone audio is G.711 at 8 kHz; speech models take 16 or 24 kHz PCM; [`activity`] tells speech from noise.

pub mod activity;
pub mod g711;
pub mod resample;
