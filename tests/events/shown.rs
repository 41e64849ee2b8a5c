//! What CI shows of a report that was joined with a log.

use std::process::Command;

use serde_json::Value;

use super::common::{self, heapcheck, text};
use super::{line, run};

/// What CI shows of a report: the place is where the block was freed again.
#[test]
fn annotations_have_the_line_at_fault() {
    let run = run("double");
    let report = run.path("report.json");
    let outcome = run.outcome("check", &run.path("log"), &["-o", report.to_str().unwrap()]);
    assert_eq!(outcome.status, 1);
    let jq = |arguments: &[&str]| {
        let mut jq = Command::new("jq");
        let output = jq
            .args(arguments)
            .arg(&report)
            .output()
            .expect("jq is there");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let examples = |name: &str| {
        common::root()
            .join("examples")
            .join(name)
            .display()
            .to_string()
    };
    let annotations = jq(&["-rf", &examples("github.jq")]);
    let expected = format!(",line={}::free was called", line("twice"));
    assert!(
        annotations.starts_with("::error title=double-free,file=")
            && annotations.contains(&expected),
        "{annotations}"
    );
    let quality: Value = serde_json::from_str(&jq(&["-f", &examples("gitlab.jq")])).unwrap();
    assert_eq!(quality[0]["location"]["lines"]["begin"], line("twice"));
    assert!(text(&quality[0], "fingerprint").len() > 8);
    let sarif = heapcheck([
        "--format",
        "sarif",
        "--events",
        run.path("log").to_str().unwrap(),
        run.path("core").to_str().unwrap(),
    ]);
    let sarif: Value = serde_json::from_str(sarif.text()).unwrap();
    let place = &sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
    assert_eq!(place["region"]["startLine"], line("twice"));
}
