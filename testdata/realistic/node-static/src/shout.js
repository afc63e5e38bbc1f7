export const shout = (text) => text.toUpperCase() + "!";
export const unused = () => "this is shaken off";
