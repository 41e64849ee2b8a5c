# A report as GitLab's code quality: jq -f examples/gitlab.jq report.json > gl-code-quality-report.json
# The place is the first frame of the crashing thread that has a source file.
[.threads[.crash_info.crashing_thread // 0].frames[]? | select(.file)][0] as $at
| [.findings[] | {description: .message, check_name: .kind, fingerprint: .fingerprint.v2,
    severity: {critical: "critical", warning: "major", note: "info"}[.severity],
    location: {path: ($at.file // "unknown"), lines: {begin: ($at.line // 1)}}}]
