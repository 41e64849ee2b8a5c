# A report as annotations of a GitHub workflow: jq -rf examples/github.jq report.json
# The place is the frame that freed again, freed, or allocated (with --events), else the first of the crashing thread that has a source file.
def first_line: [.[]? | select(.file)][0];
def escaped: gsub("%"; "%25") | gsub("\r"; "%0D") | gsub("\n"; "%0A");
def property: escaped | gsub(":"; "%3A") | gsub(","; "%2C");
([.threads[.crash_info.crashing_thread // 0].frames[]?] | first_line) as $died
| (.findings[] | . as $f
    | ([$f.freed_again_at, $f.freed_at, $f.culprit.allocated_at?, $f.allocated_at] | map(select(.) | first_line) | map(select(.))[0] // $died) as $at
    | {level: {critical: "error", warning: "warning", note: "notice"}[.severity], title: .kind, message, at: $at}),
  ((.leaks.groups // [])[] | select(.class == "definite")
    | {level: "warning", title: "memory-leak", message: "\(.blocks) blocks, \(.bytes) bytes: \(.message)", at: ((.allocated_at // .stack // []) | first_line)})
| "::\(.level) title=\(.title | property)" + (if .at then ",file=\(.at.file | property),line=\(.at.line // 1)" else "" end) + "::\(.message | escaped)"
