//! Runs QEMU and watches it: console to the sinks, keys to the guest, until something ends it.
//!
//! QEMU is a child with pipes. Nobody but [`watch_until`] decides when it ends, and that waits for no pipe: somebody who
//! doesn't read the output holds up [`show`] and with it QEMU, and neither the deadline nor a signal.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use super::lines::Splitter;
use super::outcome::Stopped;
use super::sinks::Sinks;
use super::terminal::ESCAPE;
use crate::qemu::process::{GRACE, Group, Interrupts, TICK};

/// After this pause an unfinished line is shown even if it looks like the beginning of a prefix. A loaded machine may
/// stop QEMU in the middle of one for a while, and the rest would then be taken for the domain's.
const QUIET: Duration = Duration::from_secs(2);

/// As many pieces of the console wait to be shown before QEMU has to wait, of at most [`PIECE`] bytes.
const AHEAD: usize = 16;

/// The most that is read of the console at once.
const PIECE: usize = 4096;

/// Something that the supervisor reacts to.
enum Event {
    /// All of the console is where it belongs, or can't be written.
    Shown(io::Result<()>),
    Escape,
}

/// QEMU couldn't be started or watched.
#[derive(Debug)]
pub enum Failure {
    /// The program can't be started.
    Spawn(io::Error),
    /// The console or a log can't be written.
    Output(io::Error),
    /// Waiting for QEMU, or installing the signal handlers, failed.
    Watch(io::Error),
}

/// Runs `qemu` until it ends, `timeout` expires or the user ends it. `interactive`: the escape key ends it.
///
/// # Errors
/// See [`Failure`]. QEMU doesn't outlive this call, nor does what it started.
pub fn supervise<W: Write + Send + 'static>(
    mut qemu: Command,
    splitter: Splitter,
    sinks: Sinks<W>,
    timeout: Option<Duration>,
    interactive: bool,
) -> Result<Stopped, Failure> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut interrupts = Interrupts::catch().map_err(Failure::Watch)?;
    qemu.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut group = Group::spawn(&mut qemu).map_err(Failure::Spawn)?;
    let (sender, events) = mpsc::channel();
    start(&mut group, (splitter, sinks), &sender, interactive);

    let stopped = watch_until(&events, &mut interrupts, deadline, &group);
    let status = group.end().map_err(Failure::Watch)?;
    match stopped? {
        Some(stopped) => {
            last_words(&events)?;
            Ok(stopped)
        }
        None => Ok(match status.signal() {
            Some(signal) => Stopped::QemuCrashed { signal },
            None => Stopped::QemuEnded {
                success: status.success(),
            },
        }),
    }
}

/// Starts the threads. They end with their pipe; the one that reads standard input ends with the process.
fn start<W: Write + Send + 'static>(
    group: &mut Group,
    (splitter, sinks): (Splitter, Sinks<W>),
    sender: &Sender<Event>,
    interactive: bool,
) {
    let (console, pieces) = mpsc::sync_channel(AHEAD);
    if let Some(stdout) = group.child().stdout.take() {
        thread::spawn(move || read_console(stdout, &console));
    }
    let shown = sender.clone();
    thread::spawn(move || {
        let end = show(&pieces, splitter, sinks);
        // The supervisor may have stopped waiting for it.
        let _ = shown.send(Event::Shown(end));
    });
    if let Some(stdin) = group.child().stdin.take() {
        let sender = sender.clone();
        thread::spawn(move || pass_keys(stdin, &sender, interactive));
    }
}

fn read_console(mut console: impl Read, pieces: &SyncSender<Vec<u8>>) {
    let mut buffer = [0; PIECE];
    loop {
        match console.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default().to_vec();
                if pieces.send(bytes).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
}

/// Puts the console where it belongs, to its end.
fn show<W: Write>(
    pieces: &Receiver<Vec<u8>>,
    mut splitter: Splitter,
    mut sinks: Sinks<W>,
) -> io::Result<()> {
    loop {
        let piece = if splitter.holds_back() {
            pieces.recv_timeout(QUIET)
        } else {
            pieces.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match piece {
            Ok(bytes) => splitter.feed(&bytes, &mut |piece| sinks.piece(piece)),
            Err(RecvTimeoutError::Timeout) => splitter.flush(&mut |piece| sinks.piece(piece)),
            Err(RecvTimeoutError::Disconnected) => {
                splitter.flush(&mut |piece| sinks.piece(piece));
                return sinks.finish();
            }
        }
        sinks.flush()?;
    }
}

/// Copies standard input to the guest, byte for byte. At its end the guest's line goes silent; nothing else happens.
fn pass_keys(mut guest: ChildStdin, sender: &Sender<Event>, interactive: bool) {
    let mut buffer = [0; 256];
    while let Ok(count @ 1..) = io::stdin().lock().read(&mut buffer) {
        let keys = buffer.get(..count).unwrap_or_default();
        let escape = keys.iter().position(|key| interactive && *key == ESCAPE);
        let passed = keys.get(..escape.unwrap_or(count)).unwrap_or_default();
        if guest
            .write_all(passed)
            .and_then(|()| guest.flush())
            .is_err()
        {
            return;
        }
        if escape.is_some() {
            let _ = sender.send(Event::Escape);
            return;
        }
    }
}

/// The loop. `None`: QEMU has ended by itself, and all that it wrote is shown.
fn watch_until(
    events: &Receiver<Event>,
    interrupts: &mut Interrupts,
    deadline: Option<Instant>,
    group: &Group,
) -> Result<Option<Stopped>, Failure> {
    let mut shown = false;
    loop {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(Some(Stopped::TimedOut));
        }
        if interrupts.pending().is_some() {
            return Ok(Some(Stopped::Interrupted));
        }
        match events.recv_timeout(TICK) {
            Ok(Event::Escape) => return Ok(Some(Stopped::Interrupted)),
            Ok(Event::Shown(end)) => {
                end.map_err(Failure::Output)?;
                shown = true;
            }
            Err(_) => {}
        }
        if shown && group.has_ended() {
            return Ok(None);
        }
    }
}

/// Waits a moment for what QEMU wrote before it was ended. Nobody may be reading it.
fn last_words(events: &Receiver<Event>) -> Result<(), Failure> {
    let until = Instant::now() + GRACE;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match events.recv_timeout(left) {
            Ok(Event::Shown(end)) => return end.map_err(Failure::Output),
            Ok(Event::Escape) => {}
            Err(_) => return Ok(()),
        }
    }
}
