// A list of the paths in /openapi.json: what each does, what it takes.
function make(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

const token = sessionStorage.getItem("token");
const response = await fetch("/openapi.json", { headers: token ? { Authorization: `Bearer ${token}` } : {} });
const schema = response.ok ? await response.json() : { paths: {} };
for (const [path, methods] of Object.entries(schema.paths)) {
  for (const [method, facts] of Object.entries(methods)) {
    const section = make("section", "");
    section.className = "game";
    section.append(make("h2", `${method.toUpperCase()} ${path}`), make("p", facts.description || ""));
    const list = make("ol", "");
    for (const one of facts.parameters || []) list.append(make("li", one.name));
    const body = facts.requestBody?.content["application/json"].schema.$ref.split("/").at(-1);
    for (const [name, one] of Object.entries(body ? schema.components.schemas[body].properties : {})) {
      list.append(make("li", `${name}${one.description ? `: ${one.description}` : ""}`));
    }
    section.append(list);
    document.getElementById("paths").append(section);
  }
}
