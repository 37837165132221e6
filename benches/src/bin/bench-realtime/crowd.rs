//! Many members of one channel, one of whom speaks: how much arrives, and when.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use longhouse_benches::figures::percentile;
use longhouse_benches::machine::Cpu;
use rustix::event::{Timespec, epoll};

use crate::Error;
use crate::report::Fanout;
use crate::socket::{Door, masked};

const CHANNEL: &str = "crowd";
/// Bytes of a user's payload: the moment at which it was due, and padding.
const PAYLOAD: usize = 100;
/// Messages that may be on their way to all when there is no pace.
const AHEAD: u64 = 32;
/// One delivery of this many has its latency taken.
const SAMPLED: u64 = 16;
/// Longest wait for what was sent last.
const LAST: Duration = Duration::from_secs(10);

struct Member {
    stream: TcpStream,
    /// Bytes of the frame that has not come whole.
    begun: usize,
}

pub(crate) struct Crowd {
    members: Vec<Member>,
    speaker: TcpStream,
    poll: std::os::fd::OwnedFd,
    buffer: Vec<u8>,
    /// Length of each frame that a member gets, and where in it the moment stands.
    frame: usize,
    moment: usize,
    started: Instant,
    delivered: u64,
    latencies: Vec<u64>,
}

impl Crowd {
    pub(crate) fn join(door: &Door, count: u32) -> Result<Self, Error> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(std::io::Error::from)?;
        let mut members = Vec::with_capacity(count as usize);
        for number in 0..count {
            let stream = door.enter(number, CHANNEL, None)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(u64::from(number));
            epoll::add(&poll, &stream, data, epoll::EventFlags::IN).map_err(std::io::Error::from)?;
            members.push(Member { stream, begun: 0 });
        }
        let speaker = door.enter(0, CHANNEL, None)?;
        // Header, kind and lengths, topic, event: see the server's `protocol::encode`.
        let inner = 5 + "realtime:".len() + CHANNEL.len() + 1 + PAYLOAD;
        let header = if inner < 126 { 2 } else { 4 };
        Ok(Self {
            members,
            speaker,
            poll,
            buffer: vec![0; 256 * 1024],
            frame: header + inner,
            moment: header + inner - PAYLOAD,
            started: Instant::now(),
            delivered: 0,
            latencies: Vec::new(),
        })
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Says something that was due at a moment.
    fn speak(&mut self, due: u64) -> Result<(), Error> {
        let topic = format!("realtime:{CHANNEL}");
        let mut push = vec![3, 1, 1, topic.len() as u8, 1, 0, 0];
        push.extend_from_slice(b"11");
        push.extend_from_slice(topic.as_bytes());
        push.push(b'e');
        push.extend_from_slice(&due.to_be_bytes());
        push.resize(push.len() + PAYLOAD - 8, b'x');
        self.speaker.write_all(&masked(0x82, &push))?;
        Ok(())
    }

    /// Reads what has come, waiting for it no longer than `patience`.
    fn read(&mut self, patience: Duration) -> Result<(), Error> {
        let mut events = [const { std::mem::MaybeUninit::uninit() }; 512];
        let timeout = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
        let (ready, _) =
            epoll::wait(&self.poll, &mut events, Some(&timeout)).map_err(std::io::Error::from)?;
        for event in ready {
            let data = event.data;
            let member = &mut self.members[data.u64() as usize];
            let read = match member.stream.read(&mut self.buffer) {
                Ok(0) => return Err(Error::Protocol("the server cut a member".into())),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
            // Of the whole frames in this piece, the first tells its moment.
            let first = (self.frame - member.begun) % self.frame;
            let sampled = data.u64().is_multiple_of(SAMPLED);
            if sampled
                && let Some(moment) = self.buffer[..read].get(first + self.moment..first + self.moment + 8)
            {
                let due = u64::from_be_bytes(moment.try_into().unwrap_or_default());
                self.latencies.push((self.started.elapsed().as_nanos() as u64).saturating_sub(due));
            }
            let all = member.begun + read;
            self.delivered += (all / self.frame) as u64;
            member.begun = all % self.frame;
        }
        Ok(())
    }

    fn all(&self) -> u64 {
        self.members.len() as u64
    }

    /// As much as goes through.
    pub(crate) fn as_fast_as_possible(&mut self, server: u32, window: Duration) -> Result<Fanout, Error> {
        let (before, mut spoken) = (self.delivered, 0);
        let cpu = Cpu::of(server)?;
        self.latencies.clear();
        let begun = Instant::now();
        while begun.elapsed() < window {
            while spoken * self.all() < self.delivered - before + AHEAD * self.all() {
                self.speak(self.now())?;
                spoken += 1;
            }
            self.read(Duration::from_millis(1))?;
        }
        let (delivered, took) = (self.delivered - before, begun.elapsed());
        self.wait_for(before + spoken * self.all())?;
        Ok(self.result(delivered, took, Cpu::of(server)?.since(&cpu).total))
    }

    /// So many deliveries a second, evenly.
    pub(crate) fn paced(&mut self, server: u32, deliveries: u64, window: Duration) -> Result<Fanout, Error> {
        let (before, mut spoken) = (self.delivered, 0_u64);
        let pause = 1_000_000_000 * self.all() / deliveries.max(1);
        let cpu = Cpu::of(server)?;
        self.latencies.clear();
        let (begun, first) = (Instant::now(), self.now());
        while begun.elapsed() < window {
            // Due by the clock, not by when there was time for it: what waits for us counts as latency.
            let due = first + spoken * pause;
            let now = self.now();
            if now >= due {
                self.speak(due)?;
                spoken += 1;
                continue;
            }
            self.read(Duration::from_nanos(due - now).min(Duration::from_millis(1)))?;
        }
        let took = begun.elapsed();
        self.wait_for(before + spoken * self.all())?;
        Ok(self.result(self.delivered - before, took, Cpu::of(server)?.since(&cpu).total))
    }

    fn wait_for(&mut self, delivered: u64) -> Result<(), Error> {
        let begun = Instant::now();
        while self.delivered < delivered {
            if begun.elapsed() > LAST {
                let missing = delivered - self.delivered;
                return Err(Error::Protocol(format!("{missing} deliveries did not come")));
            }
            self.read(Duration::from_millis(1))?;
        }
        Ok(())
    }

    fn result(&mut self, delivered: u64, took: Duration, cpu: Duration) -> Fanout {
        self.latencies.sort_unstable();
        let at = |share| percentile(&self.latencies, share).unwrap_or_default() as f64 / 1e6;
        let fanout = Fanout {
            deliveries_per_second: delivered as f64 / took.as_secs_f64(),
            p50_ms: at(0.5),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            samples: self.latencies.len() as u64,
            server_cpu_us_each: cpu.as_secs_f64() * 1e6 / delivered.max(1) as f64,
        };
        eprintln!("{}", fanout.line());
        fanout
    }
}
