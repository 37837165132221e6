//! API keys, tokens and the claims that requests act under.
