//! How much one client, and all of them, may do.

use std::time::Duration;

/// Bounds of the service. Replies at each of them are those of Supabase Realtime.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most sockets of this server at once; more are refused with 429.
    pub connections: usize,
    /// Most channels of one socket; a further join is refused.
    pub channels: usize,
    /// Most joins a second, all sockets of this server together; beyond it the socket is closed.
    pub joins_per_second: u32,
    /// Most messages a second from one socket, on average over ten; beyond it the channel is closed.
    pub messages_per_second: u32,
    /// Largest payload of a broadcast or a presence, in bytes.
    pub payload: usize,
    /// Most presence events a second, all channels of this server together; beyond it the channel is closed.
    pub presence_per_second: u32,
    /// Most presence events of one channel of one socket in 30 seconds; beyond it the channel is closed.
    pub presence_per_channel: u32,
    /// Most bytes that wait for one socket; a client that reads more slowly is cut.
    pub outgoing: usize,
    /// Longest silence of a client, which sends a heartbeat every 25 seconds; then its socket is closed.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            channels: 100,
            joins_per_second: 1_000,
            messages_per_second: 500,
            payload: 3_000_000,
            presence_per_second: 1_000,
            presence_per_channel: 50,
            outgoing: 4 * 1024 * 1024,
            idle: Duration::from_secs(60),
        }
    }
}

/// Events of a stretch of time. A stretch begins with its first event.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Window {
    began: u64,
    count: u32,
}

impl Window {
    /// Counts an event at `now`; false if there were `most` in this stretch of `length` milliseconds before.
    pub(crate) fn take(&mut self, now: u64, length: u64, most: u32) -> bool {
        if self.count == 0 || now.saturating_sub(self.began) >= length {
            *self = Self { began: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_within_a_stretch() {
        let mut window = Window::default();
        let taken: Vec<bool> = [0, 1, 999, 1_000, 1_500].map(|now| window.take(now, 1_000, 2)).into();
        assert_eq!(taken, [true, true, false, true, true]);
        assert!(!window.take(1_600, 1_000, 2));
    }
}
