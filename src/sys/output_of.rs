//! Asking another program for something, as before an upgrade. Never leaves the child behind.
use super::writer::is_ready;
use super::{Result, errno_of, pidfd};
use rustix::event::PollFlags;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// What an answer may be long. More of it is not read.
const ANSWER_BYTES_MAX: usize = 4096;

/// What `program`, called with `words` (the name it goes by first), writes to stdout, if it
/// ends with exit code 0. `None`: it fails, or does not end within `most`, and then is killed.
/// Errors: what the kernel says about the program's file, the pipe or the fork.
pub fn output_of(program: &str, words: &[&str], most: Duration) -> Result<Option<String>> {
    rustix::fs::access(program, rustix::fs::Access::EXEC_OK)?;
    let mut command = Command::new(program);
    command.arg0(words.first().unwrap_or(&program)).args(words.iter().skip(1));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| errno_of(&error))?;
    let ends_well = end_of(&mut child, most).is_some_and(|status| status.success());
    let Some(mut stdout) = child.stdout.take().filter(|_| ends_well) else { return Ok(None) };
    // It has ended: what it wrote is in the pipe. Something that it left behind may hold the
    // other end, so there is one read and none for the end.
    let mut bytes = [0; ANSWER_BYTES_MAX];
    let length = stdout.read(&mut bytes).unwrap_or(0);
    Ok(Some(String::from_utf8_lossy(&bytes[..length]).into_owned()))
}

/// How `child` ends within `most`; else it is killed. It is reaped either way.
pub fn end_of(child: &mut Child, most: Duration) -> Option<ExitStatus> {
    let most = most.as_millis() as u64;
    let pidfd = pidfd::open(child.id().cast_signed());
    if pidfd.and_then(|pidfd| is_ready(&pidfd, PollFlags::IN, most)) == Ok(true) {
        return child.wait().ok();
    }
    child.kill().and_then(|()| child.wait()).ok();
    None
}
