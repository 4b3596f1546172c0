SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  // A link to each route would be a link inside a button, which screen readers do not announce.
  deepLinking: false,
  // Hides the list of schemas below the routes; each route shows its own.
  defaultModelsExpandDepth: -1,
  // The default validator is a server on the internet.
  validatorUrl: null,
});
