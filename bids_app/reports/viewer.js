// A NiiVue viewer for each element of class "viewer", on the cut-out with the id `data-volume`.
// Data are unpacked when the viewer is opened; one viewer is open at a time.
"use strict";
{
  const VIEWS = { "Slices and 3-D": 3, "Sagittal": 2, "Coronal": 1, "Axial": 0, "3-D": 4 };
  const THREE_D = 4;
  const WHITE = 96, LEVELS = 128; // of bids_app/reports/images/cutout.py
  const HEADER = 352;
  const FILL = 0.35; // opacity of regions
  // Arrows move the crosshair by a voxel: to the right, to the front, up.
  const STEPS = {
    ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowDown: [0, 0, -1], ArrowUp: [0, 0, 1],
    PageDown: [0, -1, 0], PageUp: [0, 1, 0],
  };
  const TURNS = { ArrowLeft: [-5, 0], ArrowRight: [5, 0], ArrowDown: [0, -5], ArrowUp: [0, 5] };
  let library, close = () => {};

  const make = (tag, properties, ...content) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...content);
    return element;
  };

  const unpack = async (id) => {
    const text = document.getElementById(id).textContent;
    const packed = new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))]);
    const stream = packed.stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  };

  const load = async () => {
    if (!library) {
      const code = new TextDecoder().decode(await unpack("viewer-library"));
      document.head.append(make("script", { textContent: code }));
      library = window.niivue;
    }
    return library;
  };

  // A cut-out has two volumes after one header; make a file of each.
  const split = (both) => [0, 1].map((number) => {
    const length = (both.byteLength - HEADER) / 2;
    const one = new Uint8Array(HEADER + length);
    one.set(new Uint8Array(both, 0, HEADER));
    one.set(new Uint8Array(both, HEADER + number * length, length), HEADER);
    const header = new DataView(one.buffer);
    header.setInt16(40, 3, true); // dim[0]
    header.setInt16(48, 1, true); // dim[4]
    return one.buffer;
  });

  const table = (regions) => {
    const hex = (color, place) => parseInt(color.slice(place, place + 2), 16);
    return {
      R: [0, ...regions.map((r) => hex(r.color, 1))],
      G: [0, ...regions.map((r) => hex(r.color, 3))],
      B: [0, ...regions.map((r) => hex(r.color, 5))],
      A: [0, ...regions.map(() => 255)],
      I: [0, ...regions.map((r) => r.index)],
      labels: ["", ...regions.map((r) => r.name)],
    };
  };

  const controls = (nv, place) => {
    const view = make("select", {}, ...Object.keys(VIEWS).map((name) => make("option", {}, name)));
    view.addEventListener("change", () => nv.setSliceType(VIEWS[view.value]));
    const range = (name, min, max, value, change) => {
      const input = make("input", { type: "range", min, max, step: "any", value });
      input.addEventListener("input", () => change(Number(input.value)));
      return make("label", {}, name, " ", input);
    };
    const outlines = make("input", { type: "checkbox", checked: true });
    const draw = () => nv.setAtlasOutline(outlines.checked ? 1 : 0);
    outlines.addEventListener("change", draw);
    draw();
    place.append(
      make("label", {}, "View ", view),
      range("Regions", 0, 1, FILL, (opacity) => nv.setOpacity(1, opacity)),
      make("label", {}, outlines, " Outlined"),
      range("Brightness", 0, 0.9, 0.9 * (1 - WHITE / LEVELS), (bright) => {
        nv.volumes[0].cal_max = LEVELS * (1 - bright);
        nv.updateGLVolume();
      }),
    );
  };

  const keys = (nv) => (event) => {
    const turned = nv.opts.sliceType === THREE_D && TURNS[event.key];
    if (turned) {
      const { renderAzimuth, renderElevation } = nv.scene;
      nv.setRenderAzimuthElevation(renderAzimuth + turned[0], renderElevation + turned[1]);
    } else if (STEPS[event.key]) {
      nv.moveCrosshairInVox(...STEPS[event.key]);
    } else {
      return;
    }
    event.preventDefault();
    event.stopImmediatePropagation();
  };

  const open = async (root, panel) => {
    const regions = JSON.parse(root.dataset.regions);
    const niivue = await load();
    const [image, labels] = split(await unpack(root.dataset.volume));
    const bar = make("div", { className: "controls" });
    const canvas = make("canvas", { tabIndex: 0 });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${root.dataset.name}: slices and 3-D view. Arrow keys, page `
      + "up and page down move the crosshair; in the 3-D view arrows turn it.");
    const where = make("output", {});
    const names = Object.fromEntries(regions.map((r) => [r.index, r.name]));
    const nv = new niivue.Niivue({
      logLevel: "error", dragAndDropEnabled: false, isRadiologicalConvention: false,
      sagittalNoseLeft: true, show3Dcrosshair: true, backColor: [0.055, 0.055, 0.055, 1],
      crosshairWidth: 0.3, crosshairColor: [1, 1, 1, 0.5], multiplanarShowRender: 1,
      multiplanarLayout: 2,
      isColorbar: false, scrollRequiresFocus: true, fontColor: [0.9, 0.9, 0.9, 1],
    });
    nv.onLocationChange = ({ mm, values }) => {
      const place = [...mm].slice(0, 3).map((v) => v.toFixed(1)).join(", ");
      where.textContent = `${place} mm: ${names[values[1]?.value] ?? "no region"}`;
    };
    // Added before NiiVue's own listener, so that it runs first.
    canvas.addEventListener("keydown", keys(nv));
    panel.append(bar, make("div", { className: "canvas" }, canvas), make("p", { className: "note" },
      where, " Click or use arrow keys, page up and page down to move. Drag the 3-D view, or use "
      + "arrow keys in it, to rotate it. Click a slice, then scroll, to move through slices. The "
      + "participant's left is at the left."));
    await nv.attachToCanvas(canvas);
    const options = { trustCalMinMax: true, ignoreZeroVoxels: false };
    const background = await niivue.NVImage.loadFromUrl(
      { ...options, url: "image.nii", name: "image.nii", buffer: image, cal_min: 0, cal_max: WHITE });
    const overlay = await niivue.NVImage.loadFromUrl(
      { ...options, url: "labels.nii", name: "labels.nii", buffer: labels, opacity: FILL });
    overlay.setColormapLabel(table(regions));
    nv.addVolume(background);
    nv.addVolume(overlay);
    nv.setInterpolation(false);
    nv.setSliceType(3);
    controls(nv, bar);
    root.dataset.state = "open";
    return () => {
      nv.cleanup();
      nv.gl.getExtension("WEBGL_lose_context")?.loseContext();
    };
  };

  for (const root of document.querySelectorAll(".viewer")) {
    const button = root.querySelector("button");
    const label = button.textContent;
    const panel = make("div", { hidden: true });
    root.append(panel);
    button.hidden = false;
    button.setAttribute("aria-expanded", "false");
    button.addEventListener("click", async () => {
      const opening = panel.hidden;
      close();
      if (!opening) return;
      panel.hidden = false;
      button.textContent = "Close the viewer";
      button.setAttribute("aria-expanded", "true");
      let release = () => {};
      close = () => {
        close = () => {};
        release();
        panel.replaceChildren();
        panel.hidden = true;
        button.textContent = label;
        button.setAttribute("aria-expanded", "false");
        delete root.dataset.state;
      };
      try {
        release = await open(root, panel);
      } catch (error) {
        panel.replaceChildren(make("p", { role: "alert" }, "The viewer cannot be shown: it needs a "
          + `current browser with WebGL 2. (${error.message})`));
        root.dataset.state = "failed";
      }
    });
  }
}
