//! The dashboard in a real browser: what it shows moves, its buttons do what they say, and everybody can use it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod shown;
mod webdriver;

use rivermark::State;
use rivermark::server::{RunningServer, Server};
use serde_json::{Value as Json, json};
use shown::{DEADLINE, Shown, show};
use std::io::{Read, Write};
use std::net::TcpStream;
use webdriver::{Browser, ENTER, ESCAPE, RIGHT, TAB, browser};

const VIEWS: [&str; 5] = ["flow", "checkpoints", "deployments", "log", "state"];

/// The page with a job in it.
fn open(browser: &Browser, shown: &Shown, view: &str) {
    browser.open(&format!("{}#/{view}", shown.base()));
    browser.until("document.querySelector('#connection').dataset.state === 'live'");
    browser.until("document.querySelector('main h1')");
}

fn choose(browser: &Browser, flow: &str) {
    browser.until(&format!(
        "[...document.querySelectorAll('#job option')].some((one) => one.value.startsWith('{flow}'))"
    ));
    browser.run(&format!(
        "const job = document.querySelector('#job');
         job.value = [...job.options].find((one) => one.value.startsWith('{flow}')).value;
         job.dispatchEvent(new Event('change'));"
    ));
}

/// The head and the body of an answer.
fn get(server: &RunningServer, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

#[test]
fn the_page_is_served_where_it_is_wanted_and_may_load_nothing_from_elsewhere() {
    let server = Server::new().token("secret").dashboard().start().unwrap();
    let (head, page) = get(&server, "/");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    for policy in [
        "default-src 'none'",
        "script-src 'self'",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
    ] {
        assert!(head.contains(policy), "{policy} is not in {head}");
    }
    // All that it names is there, without the token, under the same policy.
    let linked: Vec<&str> = page.split(['"', '\'']).filter(|part| part.starts_with("/dashboard/")).collect();
    assert!(linked.len() >= 4, "{linked:?}");
    for path in linked {
        let (head, body) = get(&server, path);
        assert!(head.starts_with("http/1.1 200") && head.contains("default-src 'none'"), "{path}: {head}");
        assert!(!body.is_empty() && !body.contains("http://") || path.ends_with(".svg"), "{path}");
    }
    assert!(get(&server, "/v1/flows").0.starts_with("http/1.1 401"));
    let plain = Server::new().start().unwrap();
    assert!(get(&plain, "/").0.starts_with("http/1.1 404"));
    assert!(get(&plain, "/dashboard/main.js").0.starts_with("http/1.1 404"));
}

#[test]
fn the_graph_shows_the_operators_and_rates_that_move() {
    let Some(browser) = browser() else { return };
    let shown = show(Server::dashboard);
    open(&browser, &shown, "flow");
    choose(&browser, "doubled");
    let names = browser.until("document.querySelectorAll('.operators .node').length > 4 && [...document.querySelectorAll('.operators .node title')].map((one) => one.textContent)");
    let names: Vec<&str> = names.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    for name in ["numbers", "by remainder", "sums"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(names.first(), Some(&"numbers"), "a source is before what reads it");
    assert_eq!(browser.value("document.querySelectorAll('.operators .edge').length"), names.len() - 1);
    // Records flow, so the figure of the source is one, and another one later.
    let figure = "document.querySelector('.operators .node.source .figure').textContent";
    let first = browser.until(&format!("/^out [1-9].*\\/s$/.test({figure}) && {figure}"));
    browser.until(&format!("/^out [1-9].*\\/s$/.test({figure}) && {figure} !== {first}"));
    browser.until("document.querySelector('.operators .edge.flows')");
    // By keyboard from operator to operator; one is chosen, and tells more.
    browser.run("document.querySelector('.operators .node').focus()");
    browser.press(&[RIGHT, ENTER]);
    assert_eq!(browser.value("document.querySelector('.details h3').textContent"), names[1]);
    browser.end(&shown.base());
}

#[test]
fn a_checkpoint_appears_without_a_reload() {
    let Some(browser) = browser() else { return };
    let shown = show(Server::dashboard);
    open(&browser, &shown, "checkpoints");
    choose(&browser, "remainders");
    browser.run("window.isTheSamePage = true");
    let count = "document.querySelectorAll('.chart-frame .bar').length";
    let before = browser.until(count).as_u64().unwrap();
    let epoch = shown.job.checkpoint().unwrap();
    browser.until(&format!("{count} > {before}"));
    browser.until(&format!(
        "[...document.querySelectorAll('tbody th')].some((one) => one.textContent === '{}')",
        epoch.0
    ));
    assert_eq!(browser.value("window.isTheSamePage"), true);
    browser.end(&shown.base());
}

#[test]
fn a_version_is_promoted_and_rolled_back_by_keyboard_after_a_question() {
    let Some(browser) = browser() else { return };
    let shown = show(Server::dashboard);
    assert!(shown.green.wait_for(State::CaughtUp, DEADLINE));
    open(&browser, &shown, "deployments");
    choose(&browser, "doubled");
    let has_button = |name: &str| format!("document.querySelector('button[aria-label=\"{name}\"]')");
    browser.until(&has_button("Promote version 2"));
    browser.tab_to("Promote version 2");
    browser.press(&[ENTER]);
    browser.until("document.querySelector('dialog[open] h2').textContent === 'Promote version 2?'");
    // Somebody has second thoughts: nothing has happened.
    browser.press(&[ESCAPE]);
    browser.until("!document.querySelector('dialog[open]')");
    assert_eq!((shown.blue.state(), shown.green.state()), (State::Live, State::CaughtUp));
    assert_eq!(browser.value("document.activeElement.getAttribute('aria-label')"), "Promote version 2");

    browser.press(&[ENTER]);
    browser.until("document.querySelector('dialog[open]')");
    browser.write("it is right");
    browser.press(&[ENTER]);
    assert!(shown.green.wait_for(State::Live, DEADLINE));
    browser.until("document.querySelector('#toast').textContent === 'Version 2 is live.'");
    browser.until("document.querySelectorAll('.card')[1].querySelector('.badge').textContent === 'live'");
    assert_eq!(shown.blue.state(), State::Kept);

    browser.until(&has_button("Roll back version 2"));
    browser.tab_to("Roll back version 2");
    browser.press(&[ENTER]);
    browser.until("document.querySelector('dialog[open]')");
    browser.write("it is wrong");
    browser.press(&[TAB, TAB, ENTER]);
    assert!(shown.blue.wait_for(State::Live, DEADLINE));
    browser.until(
        "document.querySelectorAll('.card')[1].querySelector('.reason').textContent === 'it is wrong'",
    );
    browser.end(&shown.base());
}

#[test]
fn versions_are_compared_and_catch_up_along_a_curve() {
    let Some(browser) = browser() else { return };
    let shown = show(Server::dashboard);
    assert!(shown.green.wait_for(State::CaughtUp, DEADLINE));
    open(&browser, &shown, "deployments");
    choose(&browser, "doubled");
    browser.until("document.querySelectorAll('.series').length === 2");
    browser.tab_to("Compare with version 1");
    browser.press(&[ENTER]);
    browser.until("document.querySelector('[aria-label=Comparison] h3').textContent === 'doubled'");
    // The rows of each tenth number.
    let differing =
        "Number(document.querySelectorAll('[aria-label=Comparison] dd')[1].textContent.replaceAll(',', ''))";
    browser.until(&format!("{differing} > 0"));
    let rows = browser.value("[...document.querySelectorAll('[aria-label=Comparison] tbody tr')].map((row) => [...row.children].map((cell) => cell.textContent))");
    for row in rows.as_array().unwrap() {
        let cell = |at: usize| row[at].as_str().unwrap().to_owned();
        let number: u64 = cell(0).parse().unwrap();
        assert_eq!(
            (cell(1), cell(2)),
            (format!("[{number},{}]", 2 * number), format!("[{number},{}]", 3 * number))
        );
    }
    browser.end(&shown.base());
}

#[test]
fn the_log_is_read_from_an_offset_or_a_time_on() {
    let Some(browser) = browser() else { return };
    let shown = show(Server::dashboard);
    open(&browser, &shown, "log");
    browser.until("document.querySelector('.choices [aria-current]')");
    browser.run("[...document.querySelectorAll('.choices button')].find((one) => one.querySelector('.name').textContent === 'numbers').click()");
    let first = "document.querySelector('#log-records tbody tr')?.children";
    browser.until(&format!("document.querySelector('#log-topic').textContent === 'numbers' && {first}"));
    browser.run("document.querySelector('#log-offset').focus()");
    browser.write("17");
    browser.press(&[ENTER]);
    browser.until(&format!("{first}[0].textContent === '17'"));
    assert_eq!(browser.value(&format!("{first}[3].textContent")), "17");
    assert_eq!(browser.value("document.querySelectorAll('#log-records tbody tr').length"), 50);
    // Number 90 was at a minute and a half past midnight of 1970.
    browser.run("document.querySelector('#log-time').value = '1970-01-01T00:01:30'; document.querySelector('[aria-label=\"Go to time\"]').click()");
    browser.until(&format!(
        "{first}[0].textContent === '90' && {first}[1].textContent === '1970-01-01 00:01:30'"
    ));
    browser.run(
        "[...document.querySelectorAll('.tools button')].find((one) => one.textContent === 'Older').click()",
    );
    browser.until(&format!("{first}[0].textContent === '40'"));
    browser.end(&shown.base());
}

#[test]
fn state_is_looked_up_by_its_key() {
    let Some(mut browser) = browser() else { return };
    let shown = show(Server::dashboard);
    open(&browser, &shown, "state");
    browser.until("document.querySelectorAll('.panel tbody tr').length === 7");
    let counts = browser
        .value("[...document.querySelectorAll('.panel tbody tr')].map((row) => row.children[1].textContent)");
    assert!(
        counts.as_array().unwrap().iter().all(|count| count.as_str().unwrap().parse::<u64>().unwrap() > 0)
    );
    browser.run("document.querySelector('#state-key').focus()");
    browser.write("3");
    browser.press(&[ENTER]);
    let value = browser.until("document.querySelector('.answer .value')?.textContent");
    assert!(value.as_str().unwrap().parse::<u64>().unwrap() > 0, "{value}");
    assert!(
        browser
            .value("document.querySelector('.answer .hint').textContent")
            .as_str()
            .unwrap()
            .contains("epoch")
    );
    // And what is not there is told.
    browser.expect("404");
    browser.write("000");
    browser.press(&[ENTER]);
    browser
        .until("document.querySelector('.answer .nothing')?.textContent.includes('has nothing at `3000`')");
    browser.end(&shown.base());
}

/// Texts whose contrast to what is behind them is less than WCAG's AA asks for.
const FAINT: &str = r#"
  const channel = (value) => { value /= 255; return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4; };
  const parse = (color) => { const [r, g, b, a = 1] = color.match(/[\d.]+/g).map(Number); return { r, g, b, a }; };
  const luminance = ({ r, g, b }) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.a === 1) return color;
    }
    return parse("rgb(255, 255, 255)");
  };
  const fillOf = (text) => { const rect = text.closest(".node")?.querySelector("rect"); return rect ? parse(getComputedStyle(rect).fill) : behind(text.ownerSVGElement.parentElement); };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.getClientRects().length || element.closest(".hidden, title, :disabled, [aria-disabled=true], .skip, option")) continue;
    const style = getComputedStyle(element);
    const inSvg = element instanceof SVGElement;
    const [front, back] = [parse(inSvg ? style.fill : style.color), inSvg ? fillOf(element) : behind(element)].map(luminance);
    const contrast = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    if (contrast < 4.5) found.push(`${element.tagName}.${element.getAttribute("class")} "${element.textContent.slice(0, 30)}" ${contrast.toFixed(2)}`);
  }
  return found;"#;

#[test]
fn on_every_screen_all_views_fit_can_be_read_and_have_names_for_their_controls() {
    let Some(browser) = browser() else { return };
    let shown = show(Server::dashboard);
    assert!(shown.green.wait_for(State::CaughtUp, DEADLINE));
    for (width, height, scheme) in
        [(390, 844, "light"), (390, 844, "dark"), (1280, 900, "dark"), (1280, 900, "light")]
    {
        browser.screen(width, height, scheme);
        for view in VIEWS {
            let at = format!("{view}, {width} pixels, {scheme}");
            open(&browser, &shown, view);
            choose_if_there_is_one(&browser);
            browser.until("document.querySelector('.view tbody tr, .view .card')");
            // Less than the screen where there is a scroll bar.
            assert_eq!(
                browser.value("document.documentElement.scrollWidth - document.documentElement.clientWidth"),
                0,
                "{at}"
            );
            assert_eq!(browser.value("innerWidth"), width, "{at}");
            assert_eq!(browser.run(FAINT), json!([]), "{at}");
            assert_eq!(nameless(&browser), Vec::<Json>::new(), "{at}");
            assert_eq!(browser.value("document.querySelectorAll('h1').length"), 1, "{at}");
            assert_eq!(
                browser.value("document.querySelectorAll('.tabs [aria-current=page]').length"),
                1,
                "{at}"
            );
        }
    }
    // Who wants no motion gets none.
    let still = json!({ "features": [{ "name": "prefers-reduced-motion", "value": "reduce" }] });
    browser.chromium("Emulation.setEmulatedMedia", &still);
    open(&browser, &shown, "flow");
    browser.until("document.querySelector('.operators .edge.flows')");
    assert_eq!(browser.value("document.getAnimations().length"), 0);
    browser.end(&shown.base());
}

fn choose_if_there_is_one(browser: &Browser) {
    if browser.value("document.querySelector('#chosen').hidden") == false {
        choose(browser, "doubled");
    }
}

/// Controls that say nothing to who does not see them.
fn nameless(browser: &Browser) -> Vec<Json> {
    browser.chromium("Accessibility.enable", &json!({}));
    let tree = browser.chromium("Accessibility.getFullAXTree", &json!({}));
    let controls = [
        "button",
        "link",
        "textbox",
        "combobox",
        "img",
        "image",
        "progressbar",
        "region",
        "Date",
        "dialog",
        "navigation",
    ];
    let nodes = tree["nodes"].as_array().unwrap();
    let is_control = |node: &&Json| controls.contains(&node["role"]["value"].as_str().unwrap_or_default());
    let all: Vec<&Json> = nodes.iter().filter(|node| node["ignored"] == false).filter(is_control).collect();
    assert!(all.len() > 5, "{all:?}");
    all.into_iter()
        .filter(|node| node["name"]["value"].as_str().unwrap_or_default().trim().is_empty())
        .cloned()
        .collect()
}

#[test]
fn the_page_asks_for_the_token_and_keeps_it_for_the_tab() {
    let Some(mut browser) = browser() else { return };
    let shown = show(|server| server.token("secret").dashboard());
    browser.expect("401");
    browser.open(&shown.base());
    browser.until("document.querySelector('dialog[open] input[type=password]')");
    browser.write("wrong");
    browser.press(&[ENTER]);
    browser.until(
        "!document.querySelector('dialog[open]') || document.querySelector('#dialog-field').value === ''",
    );
    browser.until("document.querySelector('dialog[open] input[type=password]')");
    browser.write("secret");
    browser.press(&[ENTER]);
    browser.until("document.querySelector('#connection').dataset.state === 'live'");
    browser.reload();
    browser.until("document.querySelector('#connection').dataset.state === 'live'");
    assert_eq!(browser.value("document.cookie + localStorage.length"), "0");
    browser.end(&shown.base());
}

#[test]
fn a_lost_connection_is_told_and_taken_up_again() {
    let Some(mut browser) = browser() else { return };
    let mut shown = show(Server::dashboard);
    browser.expect("net::ERR_");
    open(&browser, &shown, "flow");
    shown.stop_serving();
    browser.until("document.querySelector('#connection').dataset.state === 'lost'");
    shown.serve_again();
    browser.until("document.querySelector('#connection').dataset.state === 'live'");
    browser.end(&shown.base());
}

#[test]
fn a_server_of_nothing_says_so() {
    let Some(mut browser) = browser() else { return };
    let server = Server::new().dashboard().start().unwrap();
    let base = format!("http://{}/", server.address());
    browser.expect("404");
    browser.open(&base);
    browser.until("document.querySelector('main').innerText.includes('No job runs')");
    browser.open(&format!("{base}#/log"));
    browser.until("document.querySelector('main').innerText.includes('Server::log')");
    browser.open(&format!("{base}#/state"));
    browser.until("document.querySelector('main').innerText.includes('Server::serve')");
    browser.end(&base);
}
