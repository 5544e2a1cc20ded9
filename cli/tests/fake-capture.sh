# What the hypervisor writes when it is booted with `capture`: $FAKE_CAPTURE holds the JSON.
[ -z "$FAKE_CAPTURES" ] || echo captured >> "$FAKE_CAPTURES"
printf '(terrane) Terrane on x86-64\r\n(terrane) host begin\r\n'
printf '(terrane) %s\r\n' "$(cat "$FAKE_CAPTURE")"
printf '(terrane) host end\r\n'
exec sleep 60
