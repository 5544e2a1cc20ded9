//! QEMU as a child process: a group of its own that ends as a whole, within a time, and before this program does.
//!
//! Signals and the deadline are looked at every [`TICK`]: nothing here waits for anything without an end.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

/// How often signals and the time are looked at.
pub const TICK: Duration = Duration::from_millis(20);

/// How long a process has to end, or its pipes to be read to their end, once nothing else is to come of it.
pub const GRACE: Duration = Duration::from_secs(2);

/// More than this of what QEMU says is read by nobody.
const MAX_BYTES: u64 = 16 << 20;

/// Signals that end this program.
const ENDING: [i32; 3] = [SIGHUP, SIGINT, SIGTERM];

/// While there is one, a signal that would end this program is kept: its child is to end first.
#[derive(Debug)]
pub struct Interrupts {
    signals: Signals,
    unheeded: Arc<AtomicBool>,
}

impl Interrupts {
    /// Keeps signals from now on.
    ///
    /// # Errors
    /// The system refuses the handlers.
    pub fn catch() -> io::Result<Self> {
        let unheeded = unheeded()?;
        let signals = Signals::new(ENDING)?;
        unheeded.store(false, Ordering::SeqCst);
        Ok(Self { signals, unheeded })
    }

    /// A signal that has come.
    pub fn pending(&mut self) -> Option<i32> {
        self.signals.pending().next()
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.unheeded.store(true, Ordering::SeqCst);
    }
}

/// Whether a signal does what it does by default. A handler can't be taken away again, so that this has to say it.
fn unheeded() -> io::Result<Arc<AtomicBool>> {
    static UNHEEDED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    if let Some(there) = UNHEEDED.get() {
        return Ok(there.clone());
    }
    let new = Arc::new(AtomicBool::new(true));
    for signal in ENDING {
        flag::register_conditional_default(signal, new.clone())?;
    }
    Ok(UNHEEDED.get_or_init(|| new).clone())
}

/// Ends this program as a signal does that it kept.
pub fn end_by(signal: i32) -> ! {
    // It doesn't come back from those of `ENDING`.
    let _ = low_level::emulate_default_handler(signal);
    std::process::exit(128 + signal)
}

/// A child and all that it starts: QEMU may stand behind a script. All of it ends with this.
#[derive(Debug)]
pub struct Group {
    child: Child,
    status: Option<ExitStatus>,
}

impl Group {
    /// Starts it.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        // A signal to our own group is for us.
        let child = command.process_group(0).spawn()?;
        Ok(Self {
            child,
            status: None,
        })
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Whether the child has ended.
    pub fn has_ended(&self) -> bool {
        // It isn't reaped by this: until it is nobody else gets the group's number.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let child = WaitId::Pid(Pid::from_child(&self.child));
        self.status.is_some() || !matches!(waitid(child, options), Ok(None))
    }

    /// Kills what is left of the group. The status is the child's.
    ///
    /// # Errors
    /// The child can't be waited for.
    pub fn end(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        // All of it may have ended, which is as good.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let status = self.child.wait()?;
        self.status = Some(status);
        Ok(status)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = self.end();
    }
}

/// Why a process is ended that would have gone on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Its time is up.
    TimeUp,
    /// This program is to end, by this signal.
    Signal(i32),
}

/// A process that is asked something: no input, and its outputs are ours.
#[derive(Debug)]
pub struct Process {
    group: Group,
    interrupts: Interrupts,
    deadline: Instant,
    stderr: Receiver<Vec<u8>>,
}

/// What a process said and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Its status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Process {
    /// Starts it; it has as long as `limit`.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn start(command: &mut Command, limit: Duration) -> io::Result<Self> {
        let interrupts = Interrupts::catch()?;
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut group = Group::spawn(command)?;
        let stderr = collect(group.child().stderr.take());
        Ok(Self {
            group,
            interrupts,
            deadline: Instant::now() + limit,
            stderr,
        })
    }

    /// Its standard output, once.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.group.child().stdout.take()
    }

    /// Whether it has to end.
    pub fn cut(&mut self) -> Option<Cut> {
        let signal = self.interrupts.pending().map(Cut::Signal);
        signal.or_else(|| (Instant::now() >= self.deadline).then_some(Cut::TimeUp))
    }

    /// Gives it a moment to end by itself, then ends it. The status, and its standard error.
    ///
    /// # Errors
    /// It can't be waited for.
    pub fn end(mut self, moment: Duration) -> io::Result<(ExitStatus, Vec<u8>)> {
        let until = Instant::now() + moment;
        while Instant::now() < until && !self.group.has_ended() {
            thread::sleep(TICK);
        }
        let status = self.group.end()?;
        Ok((status, collected(&self.stderr)))
    }

    /// Waits for its end, and gives back all that it said.
    ///
    /// # Errors
    /// It was ended before.
    pub fn finish(mut self) -> io::Result<Result<Said, Cut>> {
        let stdout = collect(self.stdout());
        while !self.group.has_ended() {
            if let Some(cut) = self.cut() {
                return Ok(Err(cut));
            }
            thread::sleep(TICK);
        }
        let (status, stderr) = self.end(Duration::ZERO)?;
        let stdout = collected(&stdout);
        Ok(Ok(Said {
            status,
            stdout,
            stderr,
        }))
    }
}

/// Reads a pipe in a thread of its own.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.take(MAX_BYTES).read_to_end(&mut said);
        }
        // Nobody may want it any more.
        let _ = sender.send(said);
    });
    receiver
}

/// What was read. What left the group may hold a pipe open for ever: then it is nothing.
fn collected(pipe: &Receiver<Vec<u8>>) -> Vec<u8> {
    pipe.recv_timeout(GRACE).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Process {
        let mut command = Command::new("sh");
        Process::start(command.args(["-c", script]), limit).unwrap()
    }

    #[test]
    fn what_it_says_is_given_back() {
        let process = shell("echo out; echo err >&2; exit 3", GRACE * 10);
        let said = process.finish().unwrap().unwrap();
        assert_eq!(
            (said.stdout, said.stderr),
            (b"out\n".into(), b"err\n".into())
        );
        assert_eq!(said.status.code(), Some(3));
    }

    /// Both would wait for a minute if the script alone were ended, or if its pipes were read to their end.
    #[test]
    fn nothing_of_it_outlives_its_time() {
        let begun = Instant::now();
        let cut = shell("sleep 60; true", TICK * 5).finish().unwrap();
        assert_eq!(cut.unwrap_err(), Cut::TimeUp);
        let said = shell("sleep 60 & echo out", GRACE * 10).finish();
        assert_eq!(said.unwrap().unwrap().stdout, b"out\n");
        let (_, stderr) = shell("echo err >&2; sleep 60; true", GRACE * 10)
            .end(GRACE / 4)
            .unwrap();
        assert_eq!(stderr, b"err\n");
        assert!(begun.elapsed() < GRACE * 5, "{:?}", begun.elapsed());
    }
}
