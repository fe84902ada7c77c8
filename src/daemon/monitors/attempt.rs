//! One attempt to get an answer from a service, over a socket that nobody waits for.
use crate::service::probe::{ANSWER_BYTES_MAX, Probe, read_answer};
use crate::sys::describe;
use crate::sys::token::Token;
use mio::net::TcpStream;
use mio::{Interest, Registry};
use rustix::io::Errno;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

/// What came of an attempt: the answer, or why there is none.
pub(super) type Answer = Result<(), String>;

#[derive(Debug)]
pub(super) struct Attempt {
    stream: TcpStream,
    /// Where else to try.
    others: Vec<SocketAddr>,
    /// What is sent, until it is; none where a connection is all that is asked for.
    request: Option<String>,
    answer: Vec<u8>,
}

fn reason(error: &std::io::Error) -> String {
    describe(Errno::from_io_error(error).unwrap_or(Errno::IO)).to_lowercase()
}

fn connect(registry: &Registry, token: Token, to: SocketAddr) -> Result<TcpStream, String> {
    let mut stream = TcpStream::connect(to).map_err(|error| reason(&error))?;
    let both = Interest::READABLE | Interest::WRITABLE;
    registry.register(&mut stream, token.into(), both).map_err(|error| reason(&error))?;
    Ok(stream)
}

impl Attempt {
    /// Begins; the token wakes the loop for what becomes of it. Errors: that is known already.
    pub(super) fn begin(registry: &Registry, token: Token, probe: &Probe) -> Result<Self, String> {
        let (Probe::Tcp(place) | Probe::Http(place, _)) = probe else {
            return Err("it is no socket".to_owned());
        };
        let mut others: Vec<SocketAddr> = place.addresses().collect();
        let stream = connect(registry, token, others.remove(0))?;
        Ok(Self { stream, others, request: probe.request(), answer: Vec::new() })
    }

    /// Looks how far it is. None: not yet at its end.
    pub(super) fn look(&mut self, registry: &Registry, token: Token) -> Option<Answer> {
        let failed = |error: &std::io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::NotConnected => None,
            _ => Some(Err(reason(error))),
        };
        let error = self.stream.take_error().ok().flatten();
        if let Some(error) = error.or_else(|| self.stream.peer_addr().err()) {
            let next = (error.kind() == ErrorKind::ConnectionRefused).then(|| self.others.pop());
            let Some(next) = next.flatten() else { return failed(&error) };
            match connect(registry, token, next) {
                Ok(stream) => self.stream = stream,
                Err(_) => return failed(&error),
            }
            return None;
        }
        let Some(request) = &mut self.request else { return Some(Ok(())) };
        // It is short, and the socket's buffer is empty: it is taken whole.
        if let Err(error) = self.stream.write_all(std::mem::take(request).as_bytes()) {
            return Some(Err(reason(&error)));
        }
        let mut bytes = [0; ANSWER_BYTES_MAX];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(length) => {
                    self.answer.extend_from_slice(&bytes[..length]);
                    let answer = read_answer(&self.answer, length == 0);
                    if answer.is_some() {
                        return answer;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return failed(&error),
            }
        }
    }
}
