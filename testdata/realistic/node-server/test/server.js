const isNumber = require("is-number");
if (!isNumber(require("../server.js").day())) throw new Error("a day is not a number");
console.log("tests passed");
