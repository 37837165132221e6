//! As much HTTP as a load generator needs: heads of responses whose length is said.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Error;

/// No byte for this long: something hangs. A large upload is synced to the disk meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest head.
const HEAD: usize = 16 * 1024;

/// A connection to a server.
pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream, Error> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads on until the head of a response is whole. Returns its body's length, and how much of `buffer` was read and
/// where in it the body begins. Anything but success is an error.
pub(crate) fn read_head(
    stream: &mut impl Read,
    buffer: &mut [u8],
) -> Result<(u64, std::ops::Range<usize>), Error> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Err(Error::Protocol("the server closed the connection".into()));
        }
        filled += read;
        if let Some((length, begin)) = head(&buffer[..filled])? {
            return Ok((length, begin..filled));
        }
        if filled >= HEAD {
            return Err(Error::Protocol("a head without an end".into()));
        }
    }
}

/// Length of the body and where it begins, once the head is complete.
pub(crate) fn head(received: &[u8]) -> Result<Option<(u64, usize)>, Error> {
    let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&received[..end]);
    if !head.starts_with("HTTP/1.1 2") {
        return Err(Error::Protocol(format!("refused: {}", String::from_utf8_lossy(received))));
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Ok(Some((length.unwrap_or(0), end + 4)))
}

/// Sends a request with its body and waits until the response has come to its end.
pub(crate) fn exchange(stream: &mut TcpStream, request: &[u8], body: &[u8]) -> Result<Vec<u8>, Error> {
    stream.write_all(request)?;
    stream.write_all(body)?;
    let mut buffer = vec![0; 64 * 1024];
    let (length, range) = read_head(stream, &mut buffer)?;
    let mut answer = buffer[range].to_vec();
    while (answer.len() as u64) < length {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(Error::Protocol("the server closed the connection".into()));
        }
        answer.extend_from_slice(&buffer[..read]);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_says_how_long_it_is() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nabc";
        assert_eq!(head(whole).unwrap(), Some((12, whole.len() - 3)));
        assert_eq!(head(&whole[..20]).unwrap(), None);
        assert!(head(b"HTTP/1.1 404 Not Found\r\n\r\n").is_err());
        let mut buffer = [0; 100];
        assert_eq!(read_head(&mut &whole[..], &mut buffer).unwrap(), (12, 39..42));
    }
}
