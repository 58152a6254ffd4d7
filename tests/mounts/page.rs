//! The page of `--http`, as somebody sees it who opens it in a browser.

use crate::browser::Browser;
use crate::rig::{Pair, free_ports, noise};
use serde_json::{Value, json};
use std::path::Path;

const STATE: &str = "document.getElementById('state').innerText";
/// Name, size and state of each file that is listed.
const FILES: &str =
    "[...document.querySelectorAll('#files tr')].map(row => [...row.cells].map(cell => cell.innerText))";
/// What is read under a heading; nothing where that is not shown.
const SECTION: &str = "(heading => [...document.querySelectorAll('section')].find(section => \
                       section.checkVisibility() && section.innerText.toLowerCase().startsWith(heading))?.innerText ?? '')";
/// All text that is too much like what is behind it, by the measure of WCAG 2 for text of this size.
const FAINT: &str = r"(() => {
    const numbers = colour => colour.match(/[\d.]+/g).map(Number);
    const light = colour => {
        const [red, green, blue] = numbers(colour).map(n => n / 255).map(n => n <= .04045 ? n / 12.92 : ((n + .055) / 1.055) ** 2.4);
        return .2126 * red + .7152 * green + .0722 * blue;
    };
    const behind = element => {
        const colour = getComputedStyle(element).backgroundColor;
        return (numbers(colour)[3] ?? 1) > 0 ? colour : behind(element.parentElement);
    };
    const faint = [], texts = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement, text = texts.currentNode.data.trim();
        if (!text || !element.checkVisibility()) continue;
        const style = getComputedStyle(element);
        const [more, less] = [light(element.ownerSVGElement ? style.fill : style.color), light(behind(element))].sort((a, b) => b - a);
        const contrast = (more + .05) / (less + .05);
        if (contrast < 4.5) faint.push(`${text}: ${contrast.toFixed(2)}`);
    }
    return faint;
})()";

fn section(heading: &str) -> String {
    format!("{SECTION}({heading:?})")
}

fn says(text: &str) -> impl Fn(&Value) -> bool {
    move |found| found.as_str().is_some_and(|found| found.contains(text))
}

/// The line of a file.
fn row(files: &Value, name: &str) -> Value {
    let row = files.as_array().expect("rows").iter().find(|row| row[0] == name);
    row.unwrap_or_else(|| panic!("no {name} in {files}")).clone()
}

#[test]
fn somebody_who_opens_the_page_sees_how_the_share_is_doing() {
    let Some(mut browser) = Browser::start() else { return };
    let [port, _] = free_ports();
    let address = format!("http://127.0.0.1:{port}/");
    let mut pair = Pair::new();
    pair.b.option("--http", Path::new(&format!("127.0.0.1:{port}")));
    pair.b.option("--cache-size", Path::new("8M"));
    pair.a.start();
    pair.b.start();
    pair.a.save("photo.raw", &noise(1, 3_000_000));
    pair.a.save("<b onclick=alert(1)>.txt", b"a name that is only a name");
    pair.a.save("plan.txt", b"draft");
    pair.a.flush();
    assert!(pair.b.has("plan.txt", b"draft"));

    browser.size(1100, 900);
    browser.open(&address);
    browser.until("it is level", STATE, |state| state == "level");
    let files = browser.until("all files are listed", FILES, |files| files.as_array().unwrap().len() == 3);
    assert_eq!(row(&files, "photo.raw"), json!(["photo.raw", "3.00 MB", "partial"]));
    assert_eq!(row(&files, "plan.txt"), json!(["plan.txt", "5 bytes", "synced"]));
    row(&files, "<b onclick=alert(1)>.txt");
    assert_eq!(browser.look(&section("conflicts")), "", "nothing is in conflict");

    // What somebody reads comes from the peer.
    assert!(pair.b.has("photo.raw", &noise(1, 3_000_000)));
    let pace = "[...document.querySelectorAll('polyline')].at(-1)?.getAttribute('points').split(' ').map(p => +p.split(',')[1]) ?? []";
    let rises = |points: &Value| {
        let heights = points.as_array().unwrap().iter().map(|y| y.as_f64().unwrap());
        heights.fold(f64::MAX, f64::min) < 75.0
    };
    browser.until("the curve rises", pace, rises);
    let throughput = browser.look(&section("throughput"));
    assert!(says("MB/s")(&throughput) && says("from the peer")(&throughput), "{throughput}");
    let files = browser.until("it is held", FILES, |files| row(files, "photo.raw")[2] == "synced");
    assert_eq!(files.as_array().unwrap().len(), 3);

    // Both change a file while they are apart.
    pair.a.unmount();
    browser.until("the peer is gone", STATE, |state| state == "offline");
    pair.b.save("plan.txt", b"of b, longer");
    browser.until("it is told what waits", FILES, |files| row(files, "plan.txt")[2] == "pending");
    pair.a.save("plan.txt", b"of a!!");
    pair.a.run(&["touch", "-d", "2020-01-01 00:00:00 UTC", "plan.txt"]);
    pair.a.start();
    pair.b.flush_with_conflicts();
    browser.until("a conflict is shown", STATE, |state| state == "conflicts");
    let conflict = browser.until("both sides are", &section("conflicts"), says("of the peer"));
    for told in
        ["plan.txt", "has the name", "12 bytes", "6 bytes", "plan.sync-conflict-20200101", "syncfs resolve"]
    {
        assert!(says(told)(&conflict), "{told}: {conflict}");
    }
    browser.until("and told of", &section("lately"), says("conflict: plan.txt; the version of the peer is"));
    browser.until("nothing waits any more", FILES, |files| row(files, "plan.txt")[2] == "synced");

    // Readable by day and by night, and on a telephone.
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefers(scheme);
        assert_eq!(browser.look(FAINT), json!([]), "{scheme}");
        grounds.push(browser.look("getComputedStyle(document.body).backgroundColor"));
        browser.picture(scheme);
    }
    assert_ne!(grounds[0], grounds[1]);
    browser.size(360, 740);
    browser.picture("narrow");
    let widths = browser.look("[document.documentElement.scrollWidth, document.documentElement.clientWidth]");
    assert_eq!(widths[0], widths[1], "nothing hangs over");

    assert_eq!(browser.complaints(), Vec::<String>::new());
    let elsewhere: Vec<String> =
        browser.requests().into_iter().filter(|url| !url.starts_with(&address)).collect();
    assert!(elsewhere.iter().all(|url| url.starts_with("data:")), "{elsewhere:?}");
    pair.b.unmount();
    browser.until("there is nobody any more", STATE, |state| state == "no answer");
}
