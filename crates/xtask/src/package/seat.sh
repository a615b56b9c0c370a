# Sourced by test.sh: ben sits at the computer, in a session of logind's with a display, and uses the installed app.

# What he needs besides the packages: a display, and a hand that drives the app's window.
seat_packages=(xvfb webkit2gtk-driver xdg-utils desktop-file-utils appstream libglib2.0-bin dbus-user-session)

# Begins the session. It is a real one, so that the service and polkit take him for who he is.
sit_down() {
  inside sh -c 'echo "session required pam_systemd.so" >/etc/pam.d/seat
    for kind in auth account; do echo "$kind required pam_permit.so"; done >>/etc/pam.d/seat
    mkdir -p /home/ben && chown ben: /home/ben'
  inside systemd-run --quiet --unit seat --uid ben --property PAMName=seat --working-directory /home/ben \
    --setenv XDG_SEAT=seat0 --setenv XDG_SESSION_TYPE=x11 --setenv XDG_SESSION_CLASS=user --setenv XDG_SESSION_DESKTOP=test \
    -- Xvfb :1 -screen 0 1280x800x24 -nolisten tcp
  eventually inside test -S /tmp/.X11-unix/X1
  eventually inside test -S /run/user/1000/bus
  eventually inside grep -qx ACTIVE_UID=1000 /run/systemd/seats/seat0
}

# A command of his desktop, which starts programs by way of systemd as others do: so polkit knows whose session they are of.
as_ben() {
  as_user env XDG_RUNTIME_DIR=/run/user/1000 systemd-run --user --quiet --wait --pipe --collect \
    --setenv DISPLAY=:1 --setenv LANG=C.UTF-8 --setenv GDK_BACKEND=x11 --setenv LIBGL_ALWAYS_SOFTWARE=1 \
    --setenv NO_AT_BRIDGE=1 --setenv TAURI_WEBVIEW_AUTOMATION=true -- "$@"
}

# One request of WebDriver's (W3C): METHOD PATH BODY. The driver listens within the system.
driver() {
  nsenter --target "$host" --net -- curl --silent --show-error --fail-with-body --max-time 60 --noproxy '*' \
    --request "$1" --header 'Content-Type: application/json' --data "$3" "http://127.0.0.1:4444/$2" |
    jq --exit-status --raw-output .value
}

# Has the driver open the app as the menu would.
open_app() {
  as_ben WebKitWebDriver --port=4444 >"$place/app.log" 2>&1 &
  eventually driver GET status '{}'
  local options='{"capabilities": {"alwaysMatch": {"webkitgtk:browserOptions": {"binary": "/usr/bin/partyline-app"}}}}'
  window=session/$(driver POST session "$options" | jq --raw-output .sessionId)
}

# All that can be read in the window.
text() {
  driver POST "$window/execute/sync" '{"script": "return document.body.innerText", "args": []}'
}

reads() {
  text | grep --quiet --fixed-strings -- "$1"
}

lacks() {
  local all
  all=$(text) && ! grep --quiet --fixed-strings -- "$1" <<<"$all"
}

# What is wrong would be an alert.
no_alert() {
  local count='{"script": "return document.querySelectorAll(\"[role=alert]\").length", "args": []}'
  [ "$(driver POST "$window/execute/sync" "$count")" = 0 ] || fail "the window says: $(text)"
}

press() {
  local script='return [...document.querySelectorAll("button")].find((one) => one.innerText.trim() === arguments[0]).click()'
  driver POST "$window/execute/sync" "$(jq --null-input --arg script "$script" --arg name "$1" \
    '{script: $script, args: [$name]}')" >/dev/null || true
}

close_app() {
  driver DELETE "$window" '{}' >/dev/null || true
}
