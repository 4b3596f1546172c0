SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  // A link to each route would put a link into a button, which screen readers cannot reach.
  deepLinking: false,
  // Hides the list of schemas below the routes; each route shows its own.
  defaultModelsExpandDepth: -1,
  // The default validator is a server on the internet.
  validatorUrl: null,
});
