//! Frames: a little-endian `u32` length, then that many bytes. Sans I/O: bytes in, frames out.
//!
//! The bound is checked when the length is known, before anything is allocated for it.

/// Largest request: an import of thousands of services with their environment fits.
pub const REQUEST_BYTES_MAX: usize = 16 << 20;
/// Largest reply: 5,000 services with all that `info` says fit.
pub const REPLY_BYTES_MAX: usize = 64 << 20;

/// Collects bytes until a frame is whole.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
}

impl Inbox {
    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the next whole frame's body, if there is one of at most `max` bytes. Errors: the
    /// announced length, as soon as it is over that: the stream can't go on.
    pub fn next_frame(&mut self, max: usize) -> Result<Option<Vec<u8>>, usize> {
        let Some(head) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*head) as usize;
        if length > max {
            return Err(length);
        }
        if self.bytes.len() < 4 + length {
            return Ok(None);
        }
        let rest = self.bytes.split_off(4 + length);
        let mut frame = std::mem::replace(&mut self.bytes, rest);
        frame.drain(..4);
        Ok(Some(frame))
    }

    /// Bytes held that are not yet a frame.
    pub fn pending(&self) -> usize {
        self.bytes.len()
    }
}

/// A whole frame around what `value` serializes to. Errors: what serde_json says; a body over
/// `u32::MAX` bytes.
pub fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, String> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, value).map_err(|e| e.to_string())?;
    let length = u32::try_from(frame.len() - 4).map_err(|_| "frame over 4 GiB".to_owned())?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}
