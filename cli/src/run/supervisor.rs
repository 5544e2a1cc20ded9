//! Runs QEMU and watches it: console to the sinks, keys to the guest, until something ends it.
//!
//! QEMU is a child with pipes. Threads only turn what happens into [`Event`]s; one loop decides.

use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::lines::Splitter;
use super::outcome::Stopped;
use super::sinks::Sinks;
use super::terminal::ESCAPE;

/// After this pause an unfinished line is shown even if it looks like the beginning of a prefix. A loaded machine may
/// stop QEMU in the middle of one for a while, and the rest would then be taken for the domain's.
const QUIET: Duration = Duration::from_secs(2);

/// Something that the supervisor reacts to.
enum Event {
    Console(Vec<u8>),
    ConsoleClosed,
    Escape,
    Signal,
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
/// See [`Failure`]. QEMU doesn't outlive this call.
pub fn supervise<W: Write>(
    mut qemu: Command,
    splitter: &mut Splitter,
    sinks: &mut Sinks<W>,
    timeout: Option<Duration>,
    interactive: bool,
) -> Result<Stopped, Failure> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(Failure::Watch)?;
    let mut child = qemu
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // A signal to our own group is for us: we then end QEMU and know why it ended.
        .process_group(0)
        .spawn()
        .map_err(Failure::Spawn)?;
    let events = watch(&mut child, signals, interactive);

    let stopped = watch_until(&events, deadline, splitter, sinks);
    if !matches!(stopped, Ok(None)) {
        // It may have ended by itself in the meantime, which is as good.
        let _ = child.kill();
    }
    let status = child.wait().map_err(Failure::Watch)?;
    splitter.flush(&mut |piece| sinks.piece(piece));
    Ok(stopped?.unwrap_or(match status.signal() {
        Some(signal) => Stopped::QemuCrashed { signal },
        None => Stopped::QemuEnded {
            success: status.success(),
        },
    }))
}

/// Starts the threads. They end with their pipe; the one that reads standard input ends with the process.
fn watch(child: &mut Child, mut signals: Signals, interactive: bool) -> Receiver<Event> {
    let (sender, events) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        let sender = sender.clone();
        thread::spawn(move || read_console(stdout, &sender));
    }
    if let Some(stdin) = child.stdin.take() {
        let sender = sender.clone();
        thread::spawn(move || pass_keys(stdin, &sender, interactive));
    }
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            let _ = sender.send(Event::Signal);
        }
    });
    events
}

fn read_console(mut console: impl Read, sender: &Sender<Event>) {
    let mut buffer = [0; 4096];
    loop {
        match console.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default().to_vec();
                if sender.send(Event::Console(bytes)).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let _ = sender.send(Event::ConsoleClosed);
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

/// The loop. `None`: QEMU closed its console, so it is ending.
fn watch_until<W: Write>(
    events: &Receiver<Event>,
    deadline: Option<Instant>,
    splitter: &mut Splitter,
    sinks: &mut Sinks<W>,
) -> Result<Option<Stopped>, Failure> {
    loop {
        let now = Instant::now();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
        if left == Some(Duration::ZERO) {
            return Ok(Some(Stopped::TimedOut));
        }
        let pause = if splitter.holds_back() {
            Some(QUIET)
        } else {
            None
        };
        let event = match [left, pause].into_iter().flatten().min() {
            Some(wait) => events.recv_timeout(wait),
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match event {
            Ok(Event::Console(bytes)) => splitter.feed(&bytes, &mut |piece| sinks.piece(piece)),
            Ok(Event::ConsoleClosed) | Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Ok(Event::Escape | Event::Signal) => return Ok(Some(Stopped::Interrupted)),
            Err(RecvTimeoutError::Timeout) => splitter.flush(&mut |piece| sinks.piece(piece)),
        }
        sinks.flush().map_err(Failure::Output)?;
    }
}
