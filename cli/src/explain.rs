//! What a conflict's code means: the pages of docs/conflicts.md.

use crate::diagnostics::Diagnostic;

/// The pages: a `## CODE` heading each.
const PAGES: &str = include_str!("../../docs/conflicts.md");

/// The page of `code`, or all codes if none is named.
///
/// # Errors
/// A code that isn't there, with the nearest that is.
pub fn explain(code: Option<&str>) -> Result<String, Diagnostic> {
    let Some(code) = code else {
        return Ok(pages().map(|(code, _)| format!("{code}\n")).collect());
    };
    let page = pages().find(|(name, _)| *name == code);
    let (name, text) = page.ok_or_else(|| unknown(code))?;
    Ok(format!("{name}\n\n{}\n", text.trim()))
}

fn pages() -> impl Iterator<Item = (&'static str, &'static str)> {
    PAGES
        .split("\n## ")
        .skip(1)
        .filter_map(|page| page.split_once('\n'))
}

fn unknown(code: &str) -> Diagnostic {
    let nearest = pages()
        .map(|(name, _)| (strsim::normalized_damerau_levenshtein(name, code), name))
        .filter(|(likeness, _)| *likeness > 0.5)
        .max_by(|left, right| left.0.total_cmp(&right.0));
    let help = match nearest {
        Some((_, name)) => format!("the nearest is `{name}`"),
        None => "`terrane explain` lists all codes".to_owned(),
    };
    Diagnostic::error("unknown-code", format!("there is no code `{code}`")).with_help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_planner_has_a_page() {
        let missing: Vec<&str> = layout::Code::ALL
            .iter()
            .map(|code| code.as_str())
            .filter(|code| !pages().any(|(name, _)| name == *code))
            .collect();
        assert_eq!(missing, [""; 0]);
    }

    /// The codes of this program, as its sources have them.
    #[test]
    fn every_code_of_the_command_has_a_page() {
        let own = [
            "not-toml",
            "boot-no-room",
            "container",
            "hypervisor-missing",
            "hypervisor-invalid",
            "qemu-missing",
            "qemu-refuses",
            "capture-failed",
            "iso-failed",
            "host-not-qemu",
            "cannot-write",
            "file-exists",
            "files-unknown",
            "module-size",
            "module-twice",
            "module-unknown",
            "init-memory",
            "memory-named-twice",
            "host-unreadable",
            "host-unknown",
            "run-ended",
            "terminal",
            "unknown-code",
            "config-not-literal",
            "config-invalid",
            "config-missing",
            "config-no-word",
            "config-unread",
            "xen-host",
            "xen-no-word",
            "xen-limit",
            "plan-invalid",
        ];
        let missing = own
            .iter()
            .find(|code| !pages().any(|(name, _)| name == **code));
        assert_eq!(missing, None);
    }

    #[test]
    fn a_page_is_printed_without_its_neighbours() {
        let text = explain(Some("memory-zero")).unwrap();
        assert!(
            text.starts_with("memory-zero\n\nThe domain has no memory."),
            "{text}"
        );
        assert!(!text.contains("##"), "{text}");
    }

    #[test]
    fn a_mistyped_code_leads_to_the_right_one() {
        let found = explain(Some("memory-zeroo")).unwrap_err();
        assert_eq!(found.help.as_deref(), Some("the nearest is `memory-zero`"));
    }
}
