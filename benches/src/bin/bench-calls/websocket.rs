//! WebSocket framing (RFC 6455) by hand: the generator must cost less than what it measures.

/// Text message.
pub(crate) const TEXT: u8 = 0x1;
/// Goodbye.
pub(crate) const CLOSE: u8 = 0x8;
/// Asks for a pong.
pub(crate) const PING: u8 = 0x9;
/// Answers a ping.
pub(crate) const PONG: u8 = 0xA;

/// Who writes: clients mask what they send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// Any key will do between processes of one machine; it only has to be applied.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Appends one unfragmented frame.
pub(crate) fn encode(role: Role, opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    let mask_bit = if role == Role::Client { 0x80 } else { 0 };
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..126 => out.push(mask_bit | length as u8),
        length @ 126..0x1_0000 => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    match role {
        Role::Server => out.extend_from_slice(payload),
        Role::Client => {
            out.extend_from_slice(&MASK);
            let start = out.len();
            out.extend_from_slice(payload);
            apply(MASK, &mut out[start..]);
        }
    }
}

fn apply(mask: [u8; 4], bytes: &mut [u8]) {
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// A frame in a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
}

/// Reads the first frame of `buffer`, unmasking it in place. Returns it with the bytes it took; `None` when it is
/// not complete yet. Fragments are not supported: neither side of the benchmark sends them.
pub(crate) fn decode(buffer: &mut [u8]) -> Option<(Frame<'_>, usize)> {
    let (&first, &second) = (buffer.first()?, buffer.get(1)?);
    let (length, mut head) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?)).ok()?, 10),
        short => (usize::from(short), 2),
    };
    let mask: Option<[u8; 4]> = if second & 0x80 == 0 {
        None
    } else {
        let mask = buffer.get(head..head + 4)?.try_into().ok()?;
        head += 4;
        Some(mask)
    };
    let payload = buffer.get_mut(head..head + length)?;
    if let Some(mask) = mask {
        apply(mask, payload);
    }
    Some((Frame { opcode: first & 0x0f, payload }, head + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_whole() {
        for role in [Role::Client, Role::Server] {
            for length in [0, 1, 7, 125, 126, 300, 0xffff, 0x1_0000] {
                let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
                let mut bytes = Vec::new();
                encode(role, TEXT, &payload, &mut bytes);
                let size = bytes.len();
                bytes.extend_from_slice(b"next");
                let (frame, taken) = decode(&mut bytes).unwrap();
                assert_eq!(
                    (frame, taken),
                    (Frame { opcode: TEXT, payload: &payload }, size),
                    "{role:?} {length}"
                );
                encode(role, TEXT, &payload, &mut Vec::new());
            }
        }
    }

    #[test]
    fn an_incomplete_frame_stays_as_it_is() {
        let mut whole = Vec::new();
        encode(Role::Client, TEXT, &[7; 200], &mut whole);
        for cut in 0..whole.len() {
            let mut part = whole[..cut].to_vec();
            assert_eq!(decode(&mut part), None);
            assert_eq!(part, whole[..cut]);
        }
    }

    #[test]
    fn clients_mask_as_the_standard_says() {
        // RFC 6455 §5.7, with its key.
        let mut hello = vec![0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let mut ours = Vec::new();
        encode(Role::Client, TEXT, b"Hello", &mut ours);
        assert_eq!(ours, hello);
        assert_eq!(decode(&mut hello).unwrap().0.payload, b"Hello");
    }
}
