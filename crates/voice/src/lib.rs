//! Voice sessions: callers, upstreams and the session core between them.
