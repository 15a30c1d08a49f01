// Drives the OHIF viewer as a user does, and writes down what the server answered.
//
//   node ohif.cjs JOB.json
//
// JOB: {playwright, chromium, url, server, out, steps: [{name, tab, model, options, label, points, background, classes, run}]}
// Points are in LPS mm: the slice is brought into view and the mouse clicks where the viewer shows that place.
// Per step: NAME.params.json (what the viewer sent), NAME.nrrd (what came back), NAME.png (what the user sees then).

const fs = require('fs');
const path = require('path');

const job = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const { chromium } = require(job.playwright);

const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];
const LOADING_MS = 300000;
const ANSWER_MS = 1200000;

async function main() {
  fs.mkdirSync(job.out, { recursive: true });
  const browser = await chromium.launch({ executablePath: job.chromium, args: FLAGS });
  const page = await browser.newPage({ viewport: { width: 1600, height: 1000 } });
  page.setDefaultTimeout(LOADING_MS);
  try {
    await openStudy(page);
    await connect(page);
    for (const step of job.steps) await take(page, step);
  } catch (error) {
    await page.screenshot({ path: path.join(job.out, 'failed.png') }).catch(() => {});
    throw error;
  } finally {
    await browser.close();
  }
}

async function openStudy(page) {
  await page.goto(job.url, { waitUntil: 'domcontentloaded' });
  await page.waitForSelector('#monailabelServerURL');
  await page.waitForFunction(() => {
    const viewport = window.cornerstone?.getRenderingEngines()?.[0]?.getViewports()?.[0];
    const volume = viewport?.getImageData?.();
    return Boolean(volume && viewport.getNumberOfSlices?.() > 0);
  });
  await page.screenshot({ path: path.join(job.out, 'opened.png') });
}

async function connect(page) {
  await page.fill('#monailabelServerURL', job.server);
  await page.locator('#monailabelServerURL').blur();
  await page.click('.settingsTable .actionButton');
  await page.waitForSelector('label.tab-label:has-text("Point Prompts")');
  await page.waitForTimeout(3000); // the viewer adds its segments one second after it is connected
}

async function take(page, step) {
  if (step.options) await setOptions(page, step.model, step.options);
  const tab = page.locator('.tab', { has: page.locator(`label.tab-label:text-is("${step.tab}")`) });
  await tab.locator('label.tab-label').click();
  await tab.locator('select.selectBox').first().selectOption(step.model);
  if (step.classes) await chooseClasses(tab, step.classes);
  if (step.points) {
    await tab.locator('a:text-is("Clear All Points")').click();
    await chooseLabel(tab, step.label);
    for (const point of step.points) await clickAt(page, point);
    if (step.background) {
      await chooseLabel(tab, 'background');
      for (const point of step.background) await clickAt(page, point);
      await chooseLabel(tab, step.label);
    }
  }
  const answer = page.waitForResponse((response) => response.url().includes('/infer/'), { timeout: ANSWER_MS });
  await tab.locator(`button[title="Run ${step.run}"]`).click();
  await keep(page, step, await answer);
}

async function setOptions(page, model, options) {
  await page.click('a:text-is("Options / Configurations")');
  const form = page.locator('.optionsForm');
  await form.locator('select[name=selectSection]').selectOption('infer');
  await form.locator('select[name=selectName]').selectOption(model);
  for (const [key, value] of Object.entries(options)) {
    const row = form.locator('tr', { has: page.locator(`td:text-is("${key}")`) });
    const box = row.locator('input[type=checkbox]');
    if (await box.count()) await box.setChecked(value);
    else if (await row.locator('select').count()) await row.locator('select').selectOption(String(value));
    else await row.locator('input').fill(String(value));
  }
  await page.click('button:has-text("Confirm")');
  await form.waitFor({ state: 'detached' });
}

async function chooseClasses(tab, classes) {
  for (const row of await tab.locator('.optionsTable tr').all()) {
    const name = (await row.locator('td').last().innerText()).trim();
    await row.locator('input[type=checkbox]').setChecked(classes.includes(name));
  }
}

async function chooseLabel(tab, label) {
  await tab.locator('tr.clickable-row', { has: tab.page().locator(`td:text-is("${label}")`) }).click();
}

async function clickAt(page, world) {
  await page.evaluate((target) => {
    const viewport = window.cornerstone.getRenderingEngines()[0].getViewports()[0];
    const images = viewport.getImageIds();
    const slices = images.map((id) => window.cornerstone.metaData.get('imagePlaneModule', id));
    const distance = ({ imagePositionPatient: origin, rowCosines: row, columnCosines: column }) => {
      const normal = [0, 1, 2].map((axis) => {
        const [a, b] = [(axis + 1) % 3, (axis + 2) % 3];
        return row[a] * column[b] - row[b] * column[a];
      });
      return Math.abs(normal.reduce((sum, part, axis) => sum + part * (target[axis] - origin[axis]), 0));
    };
    const best = slices.map(distance).reduce((kept, d, index, all) => (d < all[kept] ? index : kept), 0);
    const where = slices[best].imagePositionPatient;
    const { viewPlaneNormal, focalPoint, position } = viewport.getCamera();
    const shift = viewPlaneNormal.reduce((sum, part, axis) => sum + part * (where[axis] - focalPoint[axis]), 0);
    const moved = (point) => point.map((part, axis) => part + shift * viewPlaneNormal[axis]);
    viewport.setCamera({ focalPoint: moved(focalPoint), position: moved(position) });
    viewport.render();
  }, world);
  await page.waitForTimeout(1500);
  const spot = await page.evaluate((target) => {
    const viewport = window.cornerstone.getRenderingEngines()[0].getViewports()[0];
    const [x, y] = viewport.worldToCanvas(target);
    const box = viewport.canvas.getBoundingClientRect();
    return [box.left + x, box.top + y];
  }, world);
  await page.mouse.move(...spot);
  await page.mouse.down();
  await page.waitForTimeout(100);
  await page.mouse.up();
  await page.waitForTimeout(700);
}

async function keep(page, step, response) {
  const file = (suffix) => path.join(job.out, `${step.name}${suffix}`);
  const form = response.request().postData() || '';
  const params = /name="params"\r\n\r\n([\s\S]*?)\r\n--/.exec(form);
  fs.writeFileSync(file('.params.json'), params ? params[1] : form);
  fs.writeFileSync(file(response.ok() ? '.nrrd' : '.error'), await response.body());
  await page.waitForTimeout(3000);
  await page.screenshot({ path: file('.png') });
  if (!response.ok()) throw new Error(`${step.name}: status ${response.status()}`);
}

main().catch((error) => {
  console.error(String(error));
  process.exit(1);
});
