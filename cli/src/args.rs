//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::capture::HostCommand;
use crate::completions::CompletionsArgs;
use crate::init::InitArgs;
use crate::man::ManArgs;
use crate::module_files::ModuleFile;
use crate::schema::SchemaArgs;
use crate::xen_dts::XenVersion;

/// Plan, check and run systems of direct-mapped domains.
///
/// A manifest describes one machine and its domains. Exit status: 0 good; 1 the manifest has conflicts; 2 a file can't
/// be read. For `run` also: 3 the time was up, 4 a domain crashed, 5 QEMU failed.
#[derive(Debug, Parser)]
#[command(
    name = "terrane",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show every conflict of a manifest, all at once
    Check(CheckArgs),
    /// Show the whole machine: who owns which frames, where each domain sees them, what devices can reach
    Plan(PlanArgs),
    /// Say whose an address is, or what a conflict's code means and how to mend it
    Explain(ExplainArgs),
    /// Say what moves between two manifests or plans
    Diff(DiffArgs),
    /// Write all that a boot loader needs
    Image(ImageArgs),
    /// Boot it in QEMU; each console line begins with its domain's name
    Run(RunArgs),
    /// Write a starter manifest that works
    Init(InitArgs),
    /// Describe machines
    #[command(subcommand)]
    Host(HostCommand),
    /// Write the manifest's JSON schema, for editors
    Schema(SchemaArgs),
    /// Write what a shell completes the command line by
    Completions(CompletionsArgs),
    /// Write the manual pages
    Man(ManArgs),
    /// Make a manifest from another tool's configuration
    #[command(subcommand)]
    Import(ImportCommand),
}

impl Command {
    /// Whether programs are spoken to: `--json`.
    pub fn speaks_json(&self) -> bool {
        match self {
            Self::Check(args) => args.manifest.json,
            Self::Plan(args) => args.manifest.json,
            Self::Image(args) => args.manifest.json,
            Self::Run(args) => args.manifest.json,
            Self::Explain(args) => args.json,
            Self::Diff(args) => args.json,
            Self::Import(ImportCommand::Imagebuilder(args)) => args.json,
            Self::Init(_)
            | Self::Host(_)
            | Self::Schema(_)
            | Self::Completions(_)
            | Self::Man(_) => false,
        }
    }
}

/// What can be imported.
#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// A configuration of ImageBuilder, Xen's generator of boot scripts; it is read, never run
    Imagebuilder(ImagebuilderArgs),
}

/// `terrane import imagebuilder`.
#[derive(Debug, Args)]
pub struct ImagebuilderArgs {
    /// The configuration
    pub config: PathBuf,
    /// Write the manifest to a file instead of standard output
    #[arg(short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The folder that the configuration's paths count from, as with ImageBuilder's -d [default: its own]
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Write diagnostics as JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

/// What every command takes that reads a manifest.
#[derive(Debug, Args)]
pub struct ManifestArgs {
    /// The manifest: a TOML file, or a device tree for Xen (.dtb, .dts)
    pub manifest: PathBuf,
    /// The hypervisor's image [default: $TERRANE_HYPERVISOR, else target/terrane/ARCH/
    /// here or above, else beside this program]
    #[arg(long, value_name = "FILE")]
    pub hypervisor: Option<PathBuf>,
    /// The file that a boot loader puts at the address of a device tree's module, such as
    /// 0x5000_0000=vmlinuz; once for each module
    #[arg(long = "module", value_name = "ADDRESS=FILE", value_parser = ModuleFile::parse)]
    pub modules: Vec<ModuleFile>,
    /// Write diagnostics as JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

/// `terrane check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// What to read
    #[command(flatten)]
    pub manifest: ManifestArgs,
}

/// `terrane plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// What to read
    #[command(flatten)]
    pub manifest: ManifestArgs,
    /// The form of the plan
    #[arg(long, value_enum, default_value_t = PlanFormat::Text)]
    pub format: PlanFormat,
    /// The version of Xen that `--format dts` is for
    #[arg(long, value_name = "VERSION", default_value_t = XenVersion::DEFAULT)]
    pub xen: XenVersion,
    /// Write the plan to a file instead of standard output
    #[arg(short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// The forms of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    /// Tables, and a bar of memory
    Text,
    /// One line, the same that the hypervisor prints with `print-plan`
    Json,
    /// Device-tree source for Xen: an overlay in its dom0less binding
    Dts,
    /// A picture: the machine's memory and each domain's view of it
    Svg,
    /// The picture in a page with search, details and tables; it needs nothing but itself
    Html,
}

/// `terrane explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// A conflict's code, or, with an address, a manifest; without either, all codes are listed
    #[arg(value_name = "CODE|MANIFEST")]
    pub what: Option<PathBuf>,
    /// An address, such as 0x4000_0000: whose it is on the machine, what each domain sees there, why, and what may
    /// do DMA to it
    #[arg(value_parser = address)]
    pub address: Option<u64>,
    /// The hypervisor's image, as for the other commands
    #[arg(long, value_name = "FILE", requires = "address")]
    pub hypervisor: Option<PathBuf>,
    /// The files of a device tree's modules, as for the other commands
    #[arg(long = "module", value_name = "ADDRESS=FILE", value_parser = ModuleFile::parse, requires = "address")]
    pub modules: Vec<ModuleFile>,
    /// Write the answer as one JSON object, and diagnostics as JSON, one object a line
    #[arg(long, requires = "address")]
    pub json: bool,
}

/// `terrane diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A manifest, or a plan from `plan --format json`
    #[arg(value_name = "A")]
    pub before: PathBuf,
    /// Another
    #[arg(value_name = "B")]
    pub after: PathBuf,
    /// The hypervisor's image, as for the other commands
    #[arg(long, value_name = "FILE")]
    pub hypervisor: Option<PathBuf>,
    /// Write the differences as one JSON object, and diagnostics as JSON, one object a line
    #[arg(long)]
    pub json: bool,
    /// End with status 1 if there are differences
    #[arg(long)]
    pub exit_code: bool,
}

/// `terrane image`.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// What to read
    #[command(flatten)]
    pub manifest: ManifestArgs,
    /// The directory to write to; it is made if it isn't there
    #[arg(short, value_name = "DIR")]
    pub output: PathBuf,
    /// Write terrane.iso too, which GRUB boots by BIOS or UEFI (x86_64; needs grub-mkrescue)
    #[arg(long)]
    pub iso: bool,
    /// Write it in spite of conflicts
    #[arg(long)]
    pub no_check: bool,
}

/// `terrane run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// What to read
    #[command(flatten)]
    pub manifest: ManifestArgs,
    /// End after this many seconds, with status 3
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// Write each domain's console to NAME.log in this directory, the hypervisor's to terrane.log
    #[arg(long, value_name = "D")]
    pub log_dir: Option<PathBuf>,
    /// Give standard output to the domain with the console alone, byte for byte but for the carriage returns around
    /// line feeds; all other lines go to standard error
    #[arg(long)]
    pub plain: bool,
    /// Boot it in spite of conflicts, to see what the hypervisor does
    #[arg(long)]
    pub no_check: bool,
    /// More arguments for QEMU
    #[arg(last = true, value_name = "QEMU ARGS")]
    pub qemu_args: Vec<String>,
}

fn address(text: &str) -> Result<u64, String> {
    manifest::toml::parse_number(text)
        .ok_or_else(|| "not an address such as 0x4000_0000 or 1GiB".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "must be more than 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_timeout_is_a_positive_number_of_seconds() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["0", "-1", "x", "inf", "NaN"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
