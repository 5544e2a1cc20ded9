//! The commands: each plans the system of a manifest and does one thing with it.
//!
//! An error of theirs is one of writing their own output; what is wrong with the user's files is a
//! finding.

use std::io;
use std::path::Path;

use crate::args::{CheckArgs, ExplainArgs, ImageArgs, ManifestArgs, PlanArgs, PlanFormat, RunArgs};
use crate::diagnostics::Diagnostic;
use crate::exit::Exit;
use crate::findings::Findings;
use crate::host::Loader;
use crate::output::{self, Output};
use crate::stream::{self, Stream};
use crate::system::{self, Purpose, System};
use crate::view::View;
use crate::{explain, image, picture, plan_text, qemu, run, whose, xen_dts};

/// `terrane check`.
pub fn check(args: &CheckArgs) -> io::Result<Exit> {
    let mut findings = Findings::default();
    let system = System::plan(&args.manifest, Purpose::Look, &[], &mut findings);
    let stream = if args.manifest.json {
        Stream::Stdout
    } else {
        Stream::Stderr
    };
    findings.emit(args.manifest.json, stream)?;
    let exit = verdict(&system, &findings);
    if let (Exit::Good, Ok(system)) = (exit, &system) {
        let domains = system.outcome.plan.domains.len();
        let plural = if domains == 1 { "" } else { "s" };
        saying(&args.manifest).step(
            "Checked",
            format_args!("{domains} domain{plural}, no conflict"),
        );
    }
    Ok(exit)
}

/// `terrane plan`.
pub fn plan(args: &PlanArgs) -> io::Result<Exit> {
    let mut findings = Findings::default();
    let purpose = match args.format {
        PlanFormat::Dts => Purpose::Xen,
        _ => Purpose::Look,
    };
    let system = System::plan(&args.manifest, purpose, &[], &mut findings);
    let planned = system.as_ref().ok();
    let planned = planned.filter(|system| system.goes_on(&findings));
    let view = |system: &System| View::of(system.view_source()).grouped();
    let text = planned.and_then(|system| match args.format {
        PlanFormat::Text => Some(plan_as_text(system, args.output.is_none())),
        PlanFormat::Json => Some(system.json() + "\n"),
        PlanFormat::Svg => Some(picture::svg(&view(system))),
        PlanFormat::Html => Some(picture::html(&view(system))),
        PlanFormat::Dts => xen_dts::write(system, args.xen, &mut findings),
    });
    let inputs = planned.map_or(Vec::new(), |system| system.inputs(&args.manifest));
    let exit = verdict(&system, &findings);
    findings.emit(args.manifest.json, Stream::Stderr)?;
    let Some(text) = text else { return Ok(exit) };
    let written = match (&args.output, args.format) {
        (None, PlanFormat::Text) => Stream::Stdout.text(&text).map(|()| Exit::Good),
        (output, _) => saying(&args.manifest).put(text.as_bytes(), output.as_deref(), &inputs),
    };
    Ok(match written? {
        Exit::Good => exit,
        failed => failed,
    })
}

/// The plan as tables and bar, folded to the terminal's width where it goes to one.
fn plan_as_text(system: &System, to_stdout: bool) -> String {
    let source = system.view_source();
    let width = plan_text::width().filter(|_| to_stdout);
    let text = plan_text::render(source, &View::of(source), width);
    match width {
        Some(_) => text,
        None => plan_text::plain(&text),
    }
}

/// `terrane explain`.
pub fn explain(args: ExplainArgs) -> io::Result<Exit> {
    if let (Some(manifest), Some(address)) = (&args.what, args.address) {
        let manifest = ManifestArgs {
            manifest: manifest.clone(),
            hypervisor: args.hypervisor,
            modules: args.modules,
            json: args.json,
        };
        return explain_address(&manifest, address);
    }
    let code = args.what.as_deref().map(Path::to_string_lossy);
    match explain::explain(code.as_deref()) {
        Ok(text) => stream::result(text.as_bytes()).map(|()| Exit::Good),
        Err(unknown) => output::fail(unknown, Exit::Conflicts),
    }
}

fn explain_address(args: &ManifestArgs, address: u64) -> io::Result<Exit> {
    let mut findings = Findings::default();
    let system = System::plan(args, Purpose::Look, &[], &mut findings);
    findings.emit(args.json, Stream::Stderr)?;
    if let Ok(system) = &system {
        let answer = whose::explain(address, &View::of(system.view_source()));
        let text = match args.json {
            true => serde_json::to_string(&answer)? + "\n",
            false => answer.to_string(),
        };
        stream::result(text.as_bytes())?;
    }
    Ok(verdict(&system, &findings))
}

/// `terrane image`.
pub fn image(args: &ImageArgs) -> io::Result<Exit> {
    let system = match bootable(&args.manifest, &[], args.no_check)? {
        Ok(system) => system,
        Err(exit) => return Ok(outside_run(exit)),
    };
    let inputs = system.inputs(&args.manifest);
    let written = image::files(&system, args.iso)
        .and_then(|files| image::write(files, &args.output, &inputs));
    match written {
        Ok(removed) => {
            let output = saying(&args.manifest);
            output.step("Wrote", args.output.display());
            for path in removed {
                output.step("Removed", path.display());
            }
            Ok(Exit::Good)
        }
        Err(found) => fail(&args.manifest, found),
    }
}

/// `terrane run`.
pub fn run(args: RunArgs) -> io::Result<Exit> {
    if system::is_tree(&args.manifest.manifest) {
        let message = "a device tree describes a machine, and no QEMU that is that machine";
        let found = Diagnostic::error("host-not-qemu", message).with_help(
            "write the files for its boot loader by `terrane image`, or describe the system in TOML",
        );
        return fail(&args.manifest, found);
    }
    let system = match bootable(&args.manifest, &args.qemu_args, args.no_check)? {
        Ok(system) => system,
        Err(exit) => return Ok(exit),
    };
    let Loader::Qemu(machine) = &system.loader else {
        let found = Diagnostic::error("host-not-qemu", "this manifest's host isn't a QEMU machine")
            .with_help("write the files for its boot loader by `terrane image`");
        return fail(&args.manifest, found);
    };
    let files = match run::BootFiles::write(&system) {
        Ok(files) => files,
        Err(found) => return fail(&args.manifest, found),
    };
    let mut command = machine.command();
    command
        .args(machine.arguments())
        .args(qemu::CONSOLE)
        .args(files.arguments())
        .args(machine.more());
    let (domains, inputs) = (system.domains(), system.inputs(&args.manifest));
    let watch = run::Watch {
        domains: &domains,
        focus: system.focus(),
        timeout: args.timeout,
        log_dir: args.log_dir.as_deref(),
        inputs: &inputs,
        plain: args.plain,
        output: saying(&args.manifest),
    };
    run::run(command, &watch).or_else(|(found, exit)| watch.output.fail(found, exit))
}

/// A system that is to be booted: with conflicts only if `no_check`.
fn bootable(
    args: &ManifestArgs,
    qemu_args: &[String],
    no_check: bool,
) -> io::Result<Result<System, Exit>> {
    let mut findings = Findings::default();
    let system = System::plan(args, Purpose::Boot, qemu_args, &mut findings);
    findings.emit(args.json, Stream::Stderr)?;
    Ok(match system {
        Ok(_) if findings.has_errors() && !no_check => Err(Exit::Conflicts),
        other => other,
    })
}

/// The exit status of any command but `run`, which alone has one for QEMU.
fn outside_run(exit: Exit) -> Exit {
    match exit {
        Exit::QemuFailed => Exit::Unreadable,
        exit => exit,
    }
}

fn verdict(system: &Result<System, Exit>, findings: &Findings) -> Exit {
    match system {
        Err(exit) => outside_run(*exit),
        Ok(_) if findings.has_errors() => Exit::Conflicts,
        Ok(_) => Exit::Good,
    }
}

/// How a command that reads a manifest says what it ends with.
fn saying(args: &ManifestArgs) -> Output {
    Output { json: args.json }
}

/// The end of a command that can't do its part.
fn fail(args: &ManifestArgs, found: Diagnostic) -> io::Result<Exit> {
    saying(args).fail(found, Exit::Unreadable)
}
