//! Both ends of all calls in two threads: one writes a frame per call, direction and 20 ms on a true clock, the other
//! reads what arrives and takes the time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use longhouse_emulators::twilio::frames;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::OwnedFd;

use crate::Error;
use crate::line::Link;
use crate::speech::{FRAME_NS, Speech};
use crate::websocket::{self, CLOSE, PING, PONG, Role, TEXT};

/// Frames that are on their way when a window ends arrive within this time, or count as lost.
const STRAGGLERS: Duration = Duration::from_secs(2);
/// Longest wait for the last call to be hung up.
const GOODBYE: Duration = Duration::from_secs(10);
/// More complaints than this say nothing new.
const COMPLAINTS: usize = 5;

/// The two directions of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToModel,
    ToCaller,
}

/// What was seen during a window.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Nanoseconds from write to read of each frame, by direction, sorted.
    pub(crate) latencies: [Vec<u32>; 2],
    /// Frames written but never read.
    pub(crate) lost: u64,
    /// The latest that a frame was written after its time, in nanoseconds.
    pub(crate) lateness: u64,
    /// Messages that arrived besides audio, such as marks.
    pub(crate) other: u64,
}

/// What both threads and the measurement share.
#[derive(Debug)]
struct Shared {
    origin: Instant,
    /// The window that counts, in nanoseconds since `origin`.
    from: AtomicU64,
    until: AtomicU64,
    sent: [AtomicU64; 2],
    lateness: AtomicU64,
    other: AtomicU64,
    latencies: Mutex<[Vec<u32>; 2]>,
    complaints: Mutex<Vec<String>>,
    /// Calls are being hung up: closed sockets are in order.
    ending: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    fn counts(&self, stamp: u64) -> bool {
        (self.from.load(Ordering::Relaxed)..self.until.load(Ordering::Relaxed)).contains(&stamp)
    }

    fn complain(&self, text: impl FnOnce() -> String) {
        let mut complaints = lock(&self.complaints);
        if complaints.len() < COMPLAINTS {
            complaints.push(text());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something for the writing thread.
enum Order {
    Add(Box<Talker>),
    /// Answers a ping.
    Pong {
        call: usize,
        direction: Direction,
        payload: Vec<u8>,
    },
    /// A mark will have been played then.
    Mark {
        due: u64,
        call: usize,
        name: String,
    },
    HangUp,
}

/// Calls in progress.
pub(crate) struct Load {
    shared: Arc<Shared>,
    epoll: Arc<OwnedFd>,
    orders: mpsc::Sender<Order>,
    listeners: mpsc::Sender<[Listener; 2]>,
    threads: Vec<JoinHandle<()>>,
    calls: usize,
    /// Longhouse translates between two protocols; otherwise what is written is what arrives.
    translated: bool,
}

impl Load {
    /// Starts both threads for up to `capacity` calls, without any.
    pub(crate) fn start(capacity: usize, translated: bool) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            origin: Instant::now(),
            from: AtomicU64::new(u64::MAX),
            until: AtomicU64::new(0),
            sent: [AtomicU64::new(0), AtomicU64::new(0)],
            lateness: AtomicU64::new(0),
            other: AtomicU64::new(0),
            latencies: Mutex::default(),
            complaints: Mutex::default(),
            ending: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC).map_err(std::io::Error::from)?);
        let (orders, inbox) = mpsc::channel();
        let (listeners, newcomers) = mpsc::channel();
        let writer =
            Writer { shared: Arc::clone(&shared), inbox, calls: Vec::new(), marks: BinaryHeap::new() };
        let reader = Reader {
            shared: Arc::clone(&shared),
            epoll: Arc::clone(&epoll),
            orders: orders.clone(),
            newcomers,
            listeners: Vec::new(),
            open: 0,
        };
        let threads = vec![
            std::thread::Builder::new().name("writer".into()).spawn(move || writer.run(capacity))?,
            std::thread::Builder::new().name("reader".into()).spawn(move || reader.run())?,
        ];
        Ok(Self { shared, epoll, orders, listeners, threads, calls: 0, translated })
    }

    /// Lets both ends of a call talk from now on.
    pub(crate) fn add(&mut self, link: Link) -> Result<(), Error> {
        let call = self.calls;
        self.calls += 1;
        let voices = [Speech::new(call as u8), Speech::new(!(call as u8))];
        let (at_model, at_caller): (&[u8], &[u8]) = if self.translated {
            (br#""audio":""#, br#""payload":""#)
        } else {
            (br#""payload":""#, br#""delta":""#)
        };
        let listener = |stream: &TcpStream, rest, direction: Direction, marker| -> Result<Listener, Error> {
            Ok(Listener {
                stream: Some(stream.try_clone()?),
                rest,
                direction,
                voice: voices[direction as usize].clone(),
                marker,
                played: 0,
            })
        };
        let pair = [
            listener(&link.model.stream, link.model.rest, Direction::ToModel, at_model)?,
            listener(&link.caller.stream, link.caller.rest, Direction::ToCaller, at_caller)?,
        ];
        let talker = Talker {
            call,
            ends: [End::new(link.caller.stream), End::new(link.model.stream)],
            voices,
            frames: 0,
            stop: frames::stop(&link.stream_sid, 0, link.account_sid, &link.call_sid),
            stream_sid: link.stream_sid,
            text: Vec::new(),
        };
        // The writer first: it answers what the reader hears.
        let gone = || Error::Protocol("a thread of the generator has ended".into());
        self.orders.send(Order::Add(Box::new(talker))).map_err(|_| gone())?;
        for (index, listener) in pair.iter().enumerate() {
            let data = epoll::EventData::new_u64((call * 2 + index) as u64);
            if let Some(socket) = &listener.stream {
                epoll::add(&*self.epoll, socket, data, epoll::EventFlags::IN)
                    .map_err(std::io::Error::from)?;
            }
        }
        // The reader takes a newcomer from its channel when it first hears of it.
        self.listeners.send(pair).map_err(|_| gone())
    }

    /// Counts for a while. `at_start` and `at_end` are called at its very ends.
    pub(crate) fn measure<A>(
        &self,
        length: Duration,
        at_start: impl FnOnce() -> Result<A, Error>,
        at_end: impl FnOnce(A) -> Result<(), Error>,
    ) -> Result<Window, Error> {
        let shared = &self.shared;
        for counter in [&shared.sent[0], &shared.sent[1], &shared.lateness, &shared.other] {
            counter.store(0, Ordering::Relaxed);
        }
        *lock(&shared.latencies) =
            std::array::from_fn(|_| Vec::with_capacity(self.calls * 55 * (length.as_secs() as usize + 1)));
        let from = shared.now();
        shared.until.store(from + length.as_nanos() as u64, Ordering::Relaxed);
        shared.from.store(from, Ordering::Relaxed);
        let begun = at_start()?;
        std::thread::sleep(length.saturating_sub(Duration::from_nanos(shared.now() - from)));
        at_end(begun)?;
        std::thread::sleep(STRAGGLERS);
        shared.from.store(u64::MAX, Ordering::Relaxed);
        let mut latencies = std::mem::take(&mut *lock(&shared.latencies));
        let sent: u64 = shared.sent.iter().map(|sent| sent.load(Ordering::Relaxed)).sum();
        let read: usize = latencies.iter().map(Vec::len).sum();
        latencies.iter_mut().for_each(|list| list.sort_unstable());
        let complaints = std::mem::take(&mut *lock(&shared.complaints));
        if !complaints.is_empty() {
            return Err(Error::Protocol(complaints.join("; ")));
        }
        Ok(Window {
            latencies,
            lost: sent.saturating_sub(read as u64),
            lateness: shared.lateness.load(Ordering::Relaxed),
            other: shared.other.load(Ordering::Relaxed),
        })
    }

    /// Hangs up all calls and waits until the other side has closed them.
    pub(crate) fn hang_up(mut self) -> Result<(), Error> {
        self.shared.ending.store(true, Ordering::Relaxed);
        if self.translated {
            // The reader stops by itself once every call is closed.
            let _ = self.orders.send(Order::HangUp);
        } else {
            self.shared.stop.store(true, Ordering::Relaxed);
        }
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| Error::Protocol("a thread of the generator has panicked".into()))?;
        }
        match lock(&self.shared.complaints).first() {
            Some(complaint) => Err(Error::Protocol(complaint.clone())),
            None => Ok(()),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// A socket that is written to, and what it did not take yet.
struct End {
    stream: TcpStream,
    pending: Vec<u8>,
}

impl End {
    fn new(stream: TcpStream) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Writes as far as the other side takes it. `pending` holds what is to be written.
    fn flush(&mut self) -> Result<(), std::io::Error> {
        while !self.pending.is_empty() {
            match self.stream.write(&self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The writing side of one call.
struct Talker {
    call: usize,
    /// By direction of what is written: the caller's socket, the model's socket.
    ends: [End; 2],
    voices: [Speech; 2],
    frames: u32,
    stream_sid: String,
    stop: String,
    text: Vec<u8>,
}

impl Talker {
    fn speak(&mut self, direction: Direction, shared: &Shared) -> Result<(), std::io::Error> {
        self.text.clear();
        // Stamped last before the write: what comes before is the generator's own time.
        match direction {
            Direction::ToModel => {
                self.frames += 1;
                let (frames, ms) = (self.frames, self.frames * 20);
                write!(
                    self.text,
                    r#"{{"event":"media","sequenceNumber":"{}","media":{{"track":"inbound","chunk":"{frames}","timestamp":"{ms}","payload":""#,
                    frames + 1
                )?;
            }
            Direction::ToCaller => {
                let (frames, call) = (self.frames, self.call);
                write!(
                    self.text,
                    r#"{{"type":"response.output_audio.delta","event_id":"event_{call}_{frames}","response_id":"resp_{call}","item_id":"item_{call}","output_index":0,"content_index":0,"delta":""#
                )?;
            }
        }
        let stamp = shared.now();
        self.voices[direction as usize].write(stamp, &mut self.text);
        match direction {
            Direction::ToModel => write!(self.text, r#""}},"streamSid":"{}"}}"#, self.stream_sid)?,
            Direction::ToCaller => self.text.extend_from_slice(br#""}"#),
        }
        if shared.counts(stamp) {
            shared.sent[direction as usize].fetch_add(1, Ordering::Relaxed);
        }
        let text = std::mem::take(&mut self.text);
        let written = self.send(direction, TEXT, &text);
        self.text = text;
        written
    }

    fn send(&mut self, direction: Direction, opcode: u8, payload: &[u8]) -> Result<(), std::io::Error> {
        let role = if direction == Direction::ToModel { Role::Client } else { Role::Server };
        let end = &mut self.ends[direction as usize];
        websocket::encode(role, opcode, payload, &mut end.pending);
        end.flush()
    }
}

/// The writing thread.
struct Writer {
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Order>,
    calls: Vec<Talker>,
    marks: BinaryHeap<Reverse<(u64, usize, String)>>,
}

impl Writer {
    /// Writes frames until told to stop. The moments of all calls and directions are spread evenly over 20 ms.
    fn run(mut self, capacity: usize) {
        let slots = (capacity * 2) as u64;
        let begin = self.shared.now();
        for slot in 0_u64.. {
            if self.shared.stop.load(Ordering::Relaxed) || !self.take_orders() {
                return;
            }
            let due = begin + (u128::from(slot) * u128::from(FRAME_NS) / u128::from(slots)) as u64;
            let now = self.shared.now();
            if due > now {
                std::thread::sleep(Duration::from_nanos(due - now));
            } else if self.shared.counts(now) {
                self.shared.lateness.fetch_max(now - due, Ordering::Relaxed);
            }
            self.echo_marks();
            // Each call's two directions are half a period apart.
            let place = (slot % slots) as usize;
            let (call, direction) = match place % 2 {
                0 => (place / 2, Direction::ToModel),
                _ => ((place / 2 + capacity / 2) % capacity, Direction::ToCaller),
            };
            if let Some(talker) = self.calls.get_mut(call) {
                let spoken = talker.speak(direction, &self.shared);
                self.check(call, spoken);
            }
        }
    }

    fn check(&self, call: usize, written: Result<(), std::io::Error>) {
        if let Err(error) = written
            && !self.shared.ending.load(Ordering::Relaxed)
        {
            self.shared.complain(|| format!("call {call} cannot be written to: {error}"));
        }
    }

    /// `false` when there is nothing more to do.
    fn take_orders(&mut self) -> bool {
        while let Ok(order) = self.inbox.try_recv() {
            match order {
                Order::Add(talker) => self.calls.push(*talker),
                Order::Pong { call, direction, payload } => {
                    let written = self.calls[call].send(direction, PONG, &payload);
                    self.check(call, written);
                }
                Order::Mark { due, call, name } => self.marks.push(Reverse((due, call, name))),
                Order::HangUp => {
                    for talker in &mut self.calls {
                        let stop = std::mem::take(&mut talker.stop);
                        // Who has left already need not be told.
                        let _ = talker.send(Direction::ToModel, TEXT, stop.as_bytes());
                    }
                    return false;
                }
            }
        }
        true
    }

    fn echo_marks(&mut self) {
        let now = self.shared.now();
        while self.marks.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            let Some(Reverse((_, call, name))) = self.marks.pop() else { return };
            let talker = &mut self.calls[call];
            let text = frames::mark(&talker.stream_sid, talker.frames, &name);
            let written = talker.send(Direction::ToModel, TEXT, text.as_bytes());
            self.check(call, written);
        }
    }
}

/// The reading side of one socket.
struct Listener {
    /// `None` once closed.
    stream: Option<TcpStream>,
    rest: Vec<u8>,
    direction: Direction,
    voice: Speech,
    /// What stands before the audio in a message.
    marker: &'static [u8],
    /// At the caller: when everything received will have been played.
    played: u64,
}

/// The reading thread.
struct Reader {
    shared: Arc<Shared>,
    epoll: Arc<OwnedFd>,
    orders: mpsc::Sender<Order>,
    newcomers: mpsc::Receiver<[Listener; 2]>,
    listeners: Vec<Listener>,
    open: usize,
}

impl Reader {
    fn run(mut self) {
        let mut events = Vec::with_capacity(256);
        let mut chunk = vec![0; 64 * 1024];
        let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let mut ending_since = None;
        while !self.shared.stop.load(Ordering::Relaxed) {
            match epoll::wait(&*self.epoll, spare_capacity(&mut events), Some(&pause)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    self.shared.complain(|| format!("epoll: {error}"));
                    return;
                }
            }
            for event in events.drain(..) {
                let data = event.data;
                self.readable(data.u64() as usize, &mut chunk);
            }
            if self.shared.ending.load(Ordering::Relaxed) {
                let since = *ending_since.get_or_insert_with(Instant::now);
                if self.open == 0 {
                    return;
                }
                if since.elapsed() > GOODBYE {
                    let open = self.open;
                    self.shared.complain(|| format!("{open} sockets were not closed after hanging up"));
                    return;
                }
            }
        }
    }

    fn readable(&mut self, index: usize, chunk: &mut [u8]) {
        while index >= self.listeners.len() {
            let Ok(pair) = self.newcomers.recv() else { return };
            self.open += pair.len();
            self.listeners.extend(pair);
        }
        let listener = &mut self.listeners[index];
        let Some(mut stream) = listener.stream.as_ref() else { return };
        let closed = match stream.read(chunk) {
            Ok(0) => Some("closed".to_owned()),
            Ok(count) => {
                let now = self.shared.now();
                listener.rest.extend_from_slice(&chunk[..count]);
                listener.take(index / 2, now, &self.shared, &self.orders)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = closed {
            let direction = listener.direction;
            if let Some(stream) = listener.stream.take() {
                let _ = epoll::delete(&*self.epoll, &stream);
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
            self.open -= 1;
            if !self.shared.ending.load(Ordering::Relaxed) {
                self.shared.complain(|| format!("call {} lost {direction:?}: {why}", index / 2));
            }
        }
    }
}

impl Listener {
    /// Handles all complete frames; says why when the other side has closed the socket.
    fn take(
        &mut self,
        call: usize,
        now: u64,
        shared: &Shared,
        orders: &mpsc::Sender<Order>,
    ) -> Option<String> {
        let mut rest = std::mem::take(&mut self.rest);
        let mut used = 0;
        let mut closed = None;
        while let Some((frame, taken)) = websocket::decode(&mut rest[used..]) {
            used += taken;
            match frame.opcode {
                TEXT => self.text(frame.payload, call, now, shared, orders),
                PING => {
                    // The writer is the only one to write; what arrives here goes out by the same socket.
                    let direction = match self.direction {
                        Direction::ToModel => Direction::ToCaller,
                        Direction::ToCaller => Direction::ToModel,
                    };
                    let _ = orders.send(Order::Pong { call, direction, payload: frame.payload.to_vec() });
                }
                CLOSE => {
                    let role =
                        if self.direction == Direction::ToCaller { Role::Client } else { Role::Server };
                    let mut answer = Vec::new();
                    websocket::encode(role, CLOSE, frame.payload, &mut answer);
                    // The writer has stopped when calls are closed in order; otherwise the run is void anyway.
                    let _ = self.stream.as_ref().map(|mut stream| stream.write(&answer));
                    closed = Some(format!("closed: {}", String::from_utf8_lossy(frame.payload)));
                }
                _ => {}
            }
        }
        rest.drain(..used);
        self.rest = rest;
        closed
    }

    fn text(&mut self, text: &[u8], call: usize, now: u64, shared: &Shared, orders: &mpsc::Sender<Order>) {
        if let Some(at) = find(text, self.marker) {
            let audio = &text[at + self.marker.len()..];
            let audio = &audio[..audio.iter().position(|&b| b == b'"').unwrap_or(audio.len())];
            match self.voice.read(audio) {
                Some(stamp) => {
                    if shared.counts(stamp) {
                        let took = u32::try_from(now.saturating_sub(stamp)).unwrap_or(u32::MAX);
                        lock(&shared.latencies)[self.direction as usize].push(took);
                    }
                }
                None => shared.complain(|| {
                    format!("call {call}: audio was changed: {}", String::from_utf8_lossy(text))
                }),
            }
            self.played = self.played.max(now) + FRAME_NS;
            return;
        }
        shared.other.fetch_add(1, Ordering::Relaxed);
        const NAME: &[u8] = br#""name":""#;
        if text.starts_with(br#"{"event":"mark""#)
            && let Some(at) = find(text, NAME)
        {
            let name = &text[at + NAME.len()..];
            let name = &name[..name.iter().position(|&b| b == b'"').unwrap_or(0)];
            let name = String::from_utf8_lossy(name).into_owned();
            let _ = orders.send(Order::Mark { due: self.played, call, name });
        } else if !shared.ending.load(Ordering::Relaxed) {
            shared.complain(|| format!("call {call}: unexpected {}", String::from_utf8_lossy(text)));
        }
    }
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    let &first = needle.first()?;
    let mut from = 0;
    while let Some(at) = text[from..].iter().position(|&b| b == first) {
        if text[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::{Between, Exchange};

    #[test]
    fn every_frame_of_calls_to_itself_arrives_in_time() {
        let exchange = Exchange::open().unwrap();
        let mut load = Load::start(4, false).unwrap();
        for index in 0..4 {
            load.add(exchange.connect(&Between::Nothing, index).unwrap()).unwrap();
        }
        let window = load.measure(Duration::from_millis(400), || Ok(()), |()| Ok(())).unwrap();
        load.hang_up().unwrap();
        assert_eq!((window.lost, window.other), (0, 0));
        for list in &window.latencies {
            assert!((72..=84).contains(&list.len()), "{} frames of 4 calls in 400 ms", list.len());
        }
    }

    #[test]
    fn needles_are_found_where_they_begin() {
        for (text, needle, expected) in
            [("aab", "ab", Some(1)), ("ab", "ab", Some(0)), ("aa", "ab", None), ("", "a", None)]
        {
            assert_eq!(find(text.as_bytes(), needle.as_bytes()), expected);
        }
    }
}
