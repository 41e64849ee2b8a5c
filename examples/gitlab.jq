# A report as GitLab's code quality: jq -f examples/gitlab.jq report.json > gl-code-quality-report.json
# The place is the frame that freed again, freed, or allocated (with --events), else the first of the crashing thread that has a source file.
def first_line: [.[]? | select(.file)][0];
[.threads[.crash_info.crashing_thread // 0].frames[]? | select(.file)][0] as $at
| [.findings[] | . as $f
    | ([$f.freed_again_at, $f.freed_at, $f.culprit.allocated_at?, $f.allocated_at] | map(select(.) | first_line) | map(select(.))[0] // $at) as $at
    | {description: .message, check_name: .kind, fingerprint: .fingerprint.v2,
    severity: {critical: "critical", warning: "major", note: "info"}[.severity],
    location: {path: ($at.file // "unknown"), lines: {begin: ($at.line // 1)}}}]
