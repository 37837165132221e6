//! The load: many keep-alive connections in one thread, requests built beforehand, and of each response only the
//! status and the length read. It shares the box with what it measures, so it must cost little.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use crate::Error;

/// No answer for this long: something hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// What one read may take; a response of a hundred rows fits.
const BUFFER: usize = 256 * 1024;

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Each connection sends its next request when it has its answer.
    Closed,
    /// So many in a second, whether or not earlier ones are answered.
    Open(f64),
}

/// When to end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    Time(Duration),
    Requests(u64),
}

/// What came of a window.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
    /// Nanoseconds from the time a request was due to its answer, sorted.
    pub(crate) latencies: Vec<u32>,
}

impl Window {
    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    /// When the request under way was due, in nanoseconds since the beginning.
    due: Option<u64>,
}

/// Open connections to one server.
#[derive(Debug)]
pub(crate) struct Load {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    /// The request to send next.
    next: usize,
}

impl Load {
    pub(crate) fn connect(address: SocketAddr, connections: usize) -> Result<Self, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(std::io::Error::from)?;
        let connections = (0..connections)
            .map(|index| {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                let data = epoll::EventData::new_u64(index as u64);
                epoll::add(&epoll, &stream, data, epoll::EventFlags::IN).map_err(std::io::Error::from)?;
                Ok(Connection { stream, buffer: vec![0; BUFFER], filled: 0, due: None })
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self { epoll, connections, next: 0 })
    }

    /// Sends requests in turn until the end, and waits for the last answers. All must succeed.
    pub(crate) fn run(&mut self, requests: &[Vec<u8>], pace: Pace, until: Until) -> Result<Window, Error> {
        let begun = Instant::now();
        let now = || begun.elapsed().as_nanos() as u64;
        let (end, most) = match until {
            Until::Time(time) => (time.as_nanos() as u64, u64::MAX),
            Until::Requests(requests) => (u64::MAX, requests),
        };
        let interval = match pace {
            Pace::Closed => None,
            Pace::Open(rate) => Some((1e9 / rate) as u64),
        };
        // Requests that are due while every connection is busy wait here, and their time with them.
        let (mut waiting, mut idle): (VecDeque<u64>, Vec<usize>) = Default::default();
        let (mut sent, mut due) = (0_u64, 0_u64);
        let mut latencies = Vec::with_capacity(1 << 20);
        let mut events = Vec::with_capacity(self.connections.len());
        match interval {
            Some(_) => idle.extend(0..self.connections.len()),
            None => {
                for index in 0..self.connections.len() {
                    self.send(index, requests, now())?;
                    sent += 1;
                }
            }
        }
        let mut answered_at = now();
        loop {
            let time = now();
            let ending = time >= end || sent >= most;
            if let Some(interval) = interval {
                while !ending && due <= time {
                    waiting.push_back(due);
                    due += interval;
                }
                while let (Some(&due), Some(index)) = (waiting.front(), idle.last().copied()) {
                    waiting.pop_front();
                    idle.pop();
                    self.send(index, requests, due)?;
                    sent += 1;
                }
            }
            if ending && self.connections.iter().all(|connection| connection.due.is_none()) {
                break;
            }
            if time - answered_at > PATIENCE.as_nanos() as u64 {
                return Err(Error::Protocol(format!("no answer for {} s", PATIENCE.as_secs())));
            }
            let wait = if interval.is_some() && !ending { due.saturating_sub(time) } else { 100_000_000 };
            let wait = Timespec { tv_sec: 0, tv_nsec: wait.min(100_000_000) as i64 };
            events.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait))
                .or_else(|error| if error == rustix::io::Errno::INTR { Ok(0) } else { Err(error) })
                .map_err(std::io::Error::from)?;
            for event in &events {
                let index = event.data.u64() as usize;
                let connection = &mut self.connections[index];
                if !connection.receive()? {
                    continue;
                }
                answered_at = now();
                if let Some(due) = connection.due.take() {
                    latencies.push(u32::try_from(answered_at - due).unwrap_or(u32::MAX));
                }
                if interval.is_some() {
                    idle.push(index);
                } else if answered_at < end && sent < most {
                    self.send(index, requests, answered_at)?;
                    sent += 1;
                }
            }
        }
        let elapsed = begun.elapsed();
        latencies.sort_unstable();
        Ok(Window { requests: latencies.len() as u64, elapsed, latencies })
    }

    fn send(&mut self, index: usize, requests: &[Vec<u8>], due: u64) -> Result<(), Error> {
        let request = &requests[self.next % requests.len()];
        self.next += 1;
        let connection = &mut self.connections[index];
        connection.due = Some(due);
        let written = connection.stream.write(request)?;
        if written < request.len() {
            return Err(Error::Protocol("a request did not fit into the socket's buffer".into()));
        }
        Ok(())
    }
}

impl Connection {
    /// Reads what has come; true when a response is complete.
    fn receive(&mut self) -> Result<bool, Error> {
        match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) => return Err(Error::Protocol("the server closed a connection".into())),
            Ok(read) => self.filled += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let received = &self.buffer[..self.filled];
        let Some(length) = response_length(received)? else { return Ok(false) };
        if received.len() < length {
            if length > BUFFER {
                return Err(Error::Protocol(format!("a response of {length} bytes")));
            }
            return Ok(false);
        }
        if received.len() > length {
            return Err(Error::Protocol("more than one response to one request".into()));
        }
        self.filled = 0;
        Ok(true)
    }
}

/// Bytes of the response that begins here, once its head is complete. Anything but success is an error.
fn response_length(received: &[u8]) -> Result<Option<usize>, Error> {
    let Some(head) = received.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = &received[..head + 2];
    if !head.starts_with(b"HTTP/1.1 2") {
        return Err(Error::Protocol(format!("refused: {}", String::from_utf8_lossy(received))));
    }
    const NAME: &[u8] = b"\ncontent-length: ";
    let length = head
        .windows(NAME.len())
        .position(|name| name.eq_ignore_ascii_case(NAME))
        .map_or(0, |at| digits(&head[at + NAME.len()..]));
    Ok(Some(head.len() + 2 + length))
}

fn digits(text: &[u8]) -> usize {
    text.iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |number, byte| number * 10 + usize::from(byte - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_as_long_as_it_says() {
        let whole = b"HTTP/1.1 200 OK\r\nvary: x\r\nContent-Length: 12\r\n\r\n";
        assert_eq!(response_length(whole).unwrap(), Some(whole.len() + 12));
        assert_eq!(response_length(&whole[..20]).unwrap(), None);
        let empty = b"HTTP/1.1 201 Created\r\n\r\n";
        assert_eq!(response_length(empty).unwrap(), Some(empty.len()));
        assert!(response_length(b"HTTP/1.1 401 Unauthorized\r\n\r\n").is_err());
    }
}
